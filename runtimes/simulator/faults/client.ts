/**
 * `simulator-control`: speaks to the rank in whose environment it runs. Each argument is a message
 * (`'{"do":"list"}'`) or a word for one (`list`, `status`, `clear`); prints an answer a line.
 */
import { connect } from 'node:net'
import { readRehearsal } from '../rehearsal.ts'
import { addressOf, controlPath } from './place.ts'

const ANSWER_MS = 10_000
const ANSWER_CHARS_MAX = 8 * 2 ** 20
const WORDS = ['list', 'status', 'clear']

const fail = (message: string): never => {
  process.stderr.write(`simulator-control: ${message}\n`)
  process.exit(1)
}

const messageOf = (argument: string): string =>
  WORDS.includes(argument) ? JSON.stringify({ do: argument }) : argument.replaceAll('\n', ' ')

/** Sends all at once and waits for as many lines. */
const converse = (path: string, messages: readonly string[]): Promise<string> =>
  new Promise((resolve, reject) => {
    const { address, release } = addressOf(path)
    const socket = connect(address)
    let said = ''
    socket.setEncoding('utf8')
    socket.setTimeout(ANSWER_MS, () => socket.destroy(new Error('no answer in ten seconds')))
    socket.once('connect', () => {
      release()
      socket.write(`${messages.join('\n')}\n`)
    })
    socket.once('error', reject)
    socket.once('close', () => resolve(said))
    socket.on('data', (text) => {
      said += text
      const lines = said.split('\n').length - 1
      if (lines >= messages.length || said.length > ANSWER_CHARS_MAX) socket.end()
    })
  })

const messages = process.argv.slice(2).map(messageOf)
if (messages.length === 0) fail(`expected messages: JSON objects, or ${WORDS.join(', ')}`)
const read = readRehearsal(process.env.PENSTOCK_REHEARSAL)
if (!read.ok) fail(read.message)
else {
  const path = controlPath(read.rehearsal.node, read.rehearsal.gpus)
  try {
    process.stdout.write(await converse(path, messages))
  } catch (error) {
    fail(`${path}: ${error instanceof Error ? error.message : String(error)}: does the rank run?`)
  }
}
