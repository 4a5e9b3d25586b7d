/** How a rank reaches others and is reached: TCP, or whatever a test puts in its place. */
import type { Server } from 'node:http'
import { connect, createServer, type Socket } from 'node:net'
import type { Duplex } from 'node:stream'

export type Address = { readonly host: string; readonly port: number }

export type Listening =
  | { readonly ok: true; readonly close: () => void }
  | { readonly ok: false; readonly error: NodeJS.ErrnoException }

export type Net = {
  /** `take` gets each connection that comes. */
  listen(address: Address, take: (link: Duplex) => void): Promise<Listening>
  /** Null: nobody answers. */
  dial(address: Address): Promise<Duplex | null>
  /** Opens an HTTP port; what went wrong, or null. */
  serve(server: Server, address: Address): Promise<NodeJS.ErrnoException | null>
  /** Whether somebody answers on an HTTP port already. */
  taken(address: Address): Promise<boolean>
}

const linked = (socket: Socket): Socket => socket.setNoDelay(true)

export const tcp: Net = {
  listen: ({ host, port }, take) =>
    new Promise((resolve) => {
      const server = createServer((socket) => take(linked(socket)))
      server.once('error', (error) => resolve({ ok: false, error }))
      server.listen({ host, port }, () => resolve({ ok: true, close: () => server.close() }))
    }),
  dial: ({ host, port }) =>
    new Promise((resolve) => {
      const socket = connect({ host, port })
      socket.once('connect', () => {
        socket.removeAllListeners('error')
        resolve(linked(socket))
      })
      socket.once('error', () => {
        socket.destroy()
        resolve(null)
      })
    }),
  serve: (server, { host, port }) =>
    new Promise((resolve) => {
      server.once('error', resolve)
      // 4096: what uvicorn asks for is 2048; the kernel's somaxconn is the real bound.
      server.listen({ host, port, backlog: 4096 }, () => resolve(null))
    }),
  // Binding would open the port; a connection that is accepted tells that another one has it.
  taken: ({ host, port }) =>
    new Promise((resolve) => {
      const socket = connect({ host, port })
      socket.once('connect', () => {
        resolve(true)
        socket.destroy()
      })
      socket.once('error', () => resolve(false))
      socket.once('close', () => resolve(false))
      socket.setTimeout(1000, () => socket.destroy())
    }),
}
