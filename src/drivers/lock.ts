/**
 * One verb at a time for one name on this machine, also across Penstock processes. The lock is a
 * listening abstract socket (unix(7)): the kernel frees it when its holder dies, even by kill -9,
 * so there is no stale lock to judge. Forked engines do not inherit it (close-on-exec).
 */
import { createHash } from 'node:crypto'
import { createServer, type Server } from 'node:net'
import { systemClock } from '../clock.ts'

const RETRY_MS = 25

/** Runs `work` while holding the lock of `key`; waits for it until `signal` aborts. */
export const locked = async <T>(
  key: string,
  signal: AbortSignal,
  work: () => Promise<T>,
): Promise<T> => {
  // A socket name holds 107 bytes; paths may be longer, so their hash is the name.
  const path = `\0penstock-${createHash('sha256').update(key).digest('hex').slice(0, 40)}`
  let server = await tryListen(path)
  while (server === null) {
    await systemClock.sleep(RETRY_MS, signal)
    server = await tryListen(path)
  }
  try {
    signal.throwIfAborted()
    return await work()
  } finally {
    server.close()
  }
}

const tryListen = (path: string): Promise<Server | null> =>
  new Promise((resolve, reject) => {
    const server = createServer((socket) => socket.destroy())
    server.once('error', (error) => {
      if ('code' in error && error.code === 'EADDRINUSE') resolve(null)
      else reject(error)
    })
    server.listen(path, () => resolve(server))
  })
