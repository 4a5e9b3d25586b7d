/** Does something accept connections there? The only question one can put to a far machine. */
import { connect } from 'node:net'

/** Within a data centre a handshake takes less than a millisecond; silence means a firewall. */
const CONNECT_MS = 1500

export const answers = (address: string, port: number, signal: AbortSignal): Promise<boolean> =>
  new Promise((resolve, reject) => {
    signal.throwIfAborted()
    const socket = connect({ host: address, port })
    const end = (): void => {
      signal.removeEventListener('abort', abort)
      socket.destroy()
    }
    const settle = (answer: boolean): void => {
      end()
      resolve(answer)
    }
    const abort = (): void => {
      end()
      reject(signal.reason)
    }
    signal.addEventListener('abort', abort, { once: true })
    socket.setTimeout(CONNECT_MS, () => settle(false))
    socket.once('connect', () => settle(true))
    // Refused, unreachable or unknown: whatever it is, nobody holds the port that we can see.
    socket.once('error', () => settle(false))
  })
