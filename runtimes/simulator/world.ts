/**
 * All that a rank does to what is outside of it, in one place: time, output, its own end, its
 * peers, its GPUs' readings. A process has the real ones; a test plays whole days in memory.
 */
import { randomUUID } from 'node:crypto'
import { SimulatedClock } from './clock.ts'
import { type Controlled, control } from './faults/control.ts'
import { type GpuFiles, gpuFiles } from './gpu-files.ts'
import { type Net, tcp } from './net.ts'

export type World = {
  readonly clock: SimulatedClock
  readonly pid: number
  readonly net: Net
  readonly gpus: GpuFiles
  /** 32 hexadecimal digits, never the same. */
  readonly hex: () => string
  readonly stdout: (text: string) => void
  readonly stderr: (text: string) => void
  /** Nothing of the rank runs afterwards. */
  readonly exit: (code: number) => never
  /** Calls back on SIGTERM and SIGINT; returns how to hear no more of them. */
  readonly onSignal: (run: () => void) => () => void
  /** Calls back when the rank has come to its end, however. SIGKILL asks nobody. */
  readonly onExit: (run: () => void) => void
  readonly control: (controlled: Controlled) => Promise<void>
}

export const processWorld = (speed: number): World => ({
  clock: new SimulatedClock(speed),
  pid: process.pid,
  net: tcp,
  gpus: gpuFiles,
  hex: () => randomUUID().replaceAll('-', ''),
  stdout: (text) => void process.stdout.write(text),
  stderr: (text) => void process.stderr.write(text),
  exit: (code) => process.exit(code),
  onSignal: (run) => {
    for (const signal of SIGNALS) process.on(signal, run)
    return () => {
      for (const signal of SIGNALS) process.off(signal, run)
    }
  },
  onExit: (run) => void process.once('exit', run),
  control,
})

const SIGNALS = ['SIGTERM', 'SIGINT'] as const
