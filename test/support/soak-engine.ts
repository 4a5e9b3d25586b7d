/**
 * An engine whose every answer follows from the request's seed: 50 to 250 events of 20 to 400
 * bytes, cut into network pieces that do not respect events, every 40 ms; at once when not `paced`.
 */
import { createServer, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { SSE } from './engine.ts'

/** Mulberry32: small, seeded, good enough to scatter lengths. */
const randomFrom = (seed: number) => {
  let state = seed + 0x6d2b79f5
  return (): number => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296
  }
}

const answerOf = (seed: number): Buffer => {
  const random = randomFrom(seed)
  const events = Array.from({ length: 50 + Math.floor(random() * 200) }, (_, index) => {
    const content = `${index} ${'水 power '.repeat(1 + Math.floor(random() * 40))}`
    const choices = [{ index: 0, delta: { content }, finish_reason: null }]
    return `data: ${JSON.stringify({ id: `chatcmpl-${seed}`, choices })}\n\n`
  })
  const end = [{ index: 0, delta: {}, finish_reason: 'stop' }]
  events.push(`data: ${JSON.stringify({ id: `chatcmpl-${seed}`, choices: end })}\n\n`)
  return Buffer.from(`${events.join('')}data: [DONE]\n\n`)
}

type Open = { readonly response: ServerResponse; readonly bytes: Buffer; sent: number }
const open = new Set<Open>()

setInterval(() => {
  for (const one of open) {
    const until = one.sent + 97 + ((one.sent * 7) % 500)
    one.response.write(one.bytes.subarray(one.sent, until))
    one.sent = until
    if (until < one.bytes.length) continue
    one.response.end()
    open.delete(one)
  }
}, 40)

const server = createServer((request, response) => {
  const pieces: Buffer[] = []
  request.on('data', (piece: Buffer) => pieces.push(piece))
  request.once('end', () => {
    const body = Buffer.concat(pieces).toString()
    const seed = Number(/"seed":(\d+)/.exec(body)?.[1])
    response.writeHead(200, SSE)
    if (body.includes('"paced":false')) response.end(answerOf(seed))
    else open.add({ response, bytes: answerOf(seed), sent: 0 })
  })
})

server.listen(0, '127.0.0.1', () => {
  const address: AddressInfo | string | null = server.address()
  process.send?.(typeof address === 'object' && address !== null ? address.port : 0)
})

// The test is gone, however it ended: nobody else would stop this one.
process.on('disconnect', () => process.exit(0))
