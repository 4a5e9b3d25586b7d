/** Where a rank's control socket lies: found again by whoever runs in the rank's environment. */
import { closeSync, constants, openSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, dirname, join } from 'node:path'

/** sockaddr_un's path holds 108 bytes with the NUL (unix(7)). */
const PATH_BYTES_MAX = 107

export const controlPath = (node: string, gpus: readonly number[]): string => {
  const name = gpus.length === 0 ? 'none' : gpus.join('-')
  const root = process.env.TMPDIR ?? tmpdir()
  return join(root, 'penstock-rehearsal', encodeURIComponent(node), `control-${name}.sock`)
}

/** The same file under a name that fits a socket's address; `release` once it is bound. */
export const addressOf = (path: string): { readonly address: string; release(): void } => {
  if (Buffer.byteLength(path) <= PATH_BYTES_MAX) return { address: path, release: () => undefined }
  const directory = openSync(dirname(path), constants.O_RDONLY | constants.O_DIRECTORY)
  return {
    address: `/proc/self/fd/${directory}/${basename(path)}`,
    release: () => closeSync(directory),
  }
}
