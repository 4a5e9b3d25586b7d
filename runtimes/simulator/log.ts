/** Log lines in the two engines' layouts. */
import type { Engine } from './settings.ts'
import type { World } from './world.ts'

export type Log = {
  readonly info: (source: string, message: string) => void
  readonly warn: (source: string, message: string) => void
  readonly error: (source: string, message: string) => void
  /** A line without a layout: a progress bar, uvicorn, a traceback. */
  readonly plain: (line: string) => void
}

const two = (value: number): string => String(value).padStart(2, '0')

export const stampOf = (engine: Engine, now: Date): string => {
  const day = `${two(now.getMonth() + 1)}-${two(now.getDate())}`
  const time = `${two(now.getHours())}:${two(now.getMinutes())}:${two(now.getSeconds())}`
  return engine === 'vllm' ? `${day} ${time}` : `${now.getFullYear()}-${day} ${time}`
}

/** vLLM writes to stdout with level and source, SGLang to stderr with time and rank. */
export const engineLog = (
  engine: Engine,
  rank: string,
  { pid, clock, stdout, stderr }: Pick<World, 'pid' | 'clock' | 'stdout' | 'stderr'>,
): Log => {
  const print = engine === 'vllm' ? stdout : stderr
  const write = (level: string) => (source: string, message: string) => {
    const stamp = stampOf(engine, new Date(clock.epochMs()))
    const line =
      engine === 'vllm'
        ? `(${source} pid=${pid}) ${level} ${stamp} [${rank}] ${message}`
        : `[${stamp}${rank === '' ? '' : ` ${rank}`}] ${message}`
    print(`${line}\n`)
  }
  return {
    info: write('INFO'),
    warn: write('WARNING'),
    error: write('ERROR'),
    plain: (line) => print(`${line}\n`),
  }
}
