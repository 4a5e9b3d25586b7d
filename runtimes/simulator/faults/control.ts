/**
 * A rank's control socket: lines of JSON in, lines of JSON out, one answer to each. Whatever
 * comes, the engine goes on; a socket file that a killed process left is taken over.
 */
import { mkdirSync, renameSync, rmSync, statSync } from 'node:fs'
import { createServer, type Server, type Socket } from 'node:net'
import { dirname } from 'node:path'
import type { Rehearsal } from '../../../src/core/runtime.ts'
import type { SimulatedClock } from '../clock.ts'
import type { Settings } from '../settings.ts'
import { type Answer, answerTo, MESSAGE_BYTES_MAX, type Rank } from './message.ts'
import { addressOf, controlPath } from './place.ts'
import type { FaultSchedule } from './schedule.ts'

/** A CLI, a timeline, a curious operator; more is a mistake. */
const CONNECTIONS_MAX = 32
/** Somebody who connects and says nothing for a minute, real time, has gone. */
const IDLE_MS = 60_000
const NEWLINE = 0x0a

export type Controlled = {
  readonly settings: Settings
  readonly rehearsal: Rehearsal
  readonly clock: SimulatedClock
  readonly faults: FaultSchedule
}

/** The rank's socket, open as long as the process lives; the engine runs without it too. */
export const control = async ({ settings, rehearsal, clock, faults }: Controlled) => {
  const { engine, nodeRank: rank } = settings
  const { node, gpus, speed } = rehearsal
  try {
    await openControl(controlPath(node, gpus), {
      schedule: faults,
      now: () => clock.now(),
      at: (epochMs) => clock.at(epochMs),
      epochMs: () => Date.now(),
      status: () => ({ engine, node, gpus, rank, speed, pid: process.pid }),
    })
  } catch (error) {
    process.stderr.write(`simulator: no control socket: ${String(error)}\n`)
  }
}

/** Resolves when it can be connected to. */
export const openControl = async (path: string, rank: Rank): Promise<Server> => {
  const server = createServer((socket) => converse(socket, rank))
  server.maxConnections = CONNECTIONS_MAX
  mkdirSync(dirname(path), { recursive: true })
  // Bound under a name of its own and renamed: no moment without a socket, none with a dead one.
  const own = `${path}.${process.pid}`
  rmSync(own, { force: true })
  const { address, release } = addressOf(own)
  await new Promise<void>((opened, failed) => {
    server.once('error', failed)
    server.listen(address, opened)
  })
  release()
  renameSync(own, path)
  const { ino } = statSync(path)
  process.once('exit', () => {
    // The next process of this rank may have taken the name already.
    if (statSync(path, { throwIfNoEntry: false })?.ino === ino) rmSync(path, { force: true })
  })
  server.unref()
  return server
}

const converse = (socket: Socket, rank: Rank): void => {
  let rest: Buffer = Buffer.alloc(0)
  const say = (answer: Answer) => socket.write(`${JSON.stringify(answer)}\n`)
  socket.setTimeout(IDLE_MS, () => socket.destroy())
  socket.on('error', () => socket.destroy())
  socket.on('data', (bytes) => {
    rest = Buffer.concat([rest, Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes)])
    for (let end = rest.indexOf(NEWLINE); end !== -1; end = rest.indexOf(NEWLINE)) {
      const line = rest.subarray(0, end).toString('utf8').trim()
      rest = rest.subarray(end + 1)
      if (line !== '') say(lineAnswer(line, rank))
    }
    if (rest.length <= MESSAGE_BYTES_MAX) return
    rest = Buffer.alloc(0)
    say(TOO_LONG)
    socket.destroySoon()
  })
}

const TOO_LONG: Answer = { ok: false, message: `a message is at most ${MESSAGE_BYTES_MAX} bytes` }

const lineAnswer = (line: string, rank: Rank): Answer =>
  line.length > MESSAGE_BYTES_MAX ? TOO_LONG : answerTo(line, rank)
