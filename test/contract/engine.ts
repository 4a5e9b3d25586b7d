/**
 * The engine that the contract is held against: a real one at CONTRACT_URL (`make conformance`
 * sets it), else the flight simulator under the same command line.
 */
import {
  cleanUp,
  freePort,
  isReady,
  rehearsal,
  Simulated,
  stopAll,
  until,
} from '../runtimes/simulator/support.ts'

export type Subject = {
  readonly url: string
  readonly model: string
  readonly end: () => Promise<void>
}

const MODEL = 'tiny-qwen2'

export const subject = async (): Promise<Subject> => {
  const given = process.env.CONTRACT_URL
  if (given !== undefined && given !== '') {
    return { url: given, model: process.env.CONTRACT_MODEL ?? MODEL, end: async () => {} }
  }
  const port = await freePort()
  const line =
    `serve ./${MODEL} --served-model-name ${MODEL} --port ${port} --host 127.0.0.1 ` +
    '--max-model-len 2048 --enable-prompt-tokens-details'
  // 50 tokens a second at speed 1: quick, and slow enough to be left in mid-stream.
  const one = new Simulated('vllm', line.split(' '), rehearsal({ speed: 20 }))
  const url = `http://127.0.0.1:${port}`
  await until(isReady(url), 'the engine', () => one.output)
  const end = async () => {
    await stopAll()
    cleanUp()
  }
  return { url, model: MODEL, end }
}

/** A pooling engine: a real one at CONTRACT_POOLING_URL, served so, else the simulator. */
export const POOLING_FLAGS =
  '--runner pooling --max-model-len 2048 --hf-overrides ' +
  '{"is_matryoshka":true,"matryoshka_dimensions":[16,64]}'

export const poolingSubject = async (): Promise<Subject> => {
  const given = process.env.CONTRACT_POOLING_URL
  if (given !== undefined && given !== '') {
    return { url: given, model: process.env.CONTRACT_MODEL ?? MODEL, end: async () => {} }
  }
  const port = await freePort()
  const line = `serve ./${MODEL} --served-model-name ${MODEL} --port ${port} --host 127.0.0.1`
  const flags = POOLING_FLAGS.split(' ')
  const one = new Simulated('vllm', [...line.split(' '), ...flags], rehearsal({ speed: 100 }))
  const url = `http://127.0.0.1:${port}`
  await until(isReady(url), 'the pooling engine', () => one.output)
  const end = async () => {
    await stopAll()
    cleanUp()
  }
  return { url, model: MODEL, end }
}
