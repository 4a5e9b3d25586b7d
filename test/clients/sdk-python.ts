/** The official Python SDK in one long-lived process: a line of JSON in, a line of JSON out. */
import { spawn } from 'node:child_process'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { Outcome, type Sdk } from './sdk.ts'

const SCRIPT = join(import.meta.dirname, 'sdk_python.py')

/** `python` has the `openai` package (support/python.ts). */
export const startPython = (python: string): Sdk => {
  const child = spawn(python, [SCRIPT], { stdio: ['pipe', 'pipe', 'inherit'] })
  const gone = new Promise<void>((resolve) => {
    child.once('close', () => resolve())
    child.once('error', () => resolve())
  })
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  return {
    name: 'python',
    call: async (base, call) => {
      child.stdin.write(`${JSON.stringify({ base, call })}\n`)
      const { value, done } = await lines.next()
      if (done === true) throw new Error('the Python side has ended')
      return Outcome.parse(JSON.parse(value))
    },
    close: async () => {
      child.stdin.end()
      await gone
    },
  }
}
