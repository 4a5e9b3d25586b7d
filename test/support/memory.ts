/** Memory that is still held: what waits for the collector is no leak. */
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'

/** Bytes outside of the heap (buffers, sockets' pieces) after a full collection. */
export const heldOutsideHeap = (): number => {
  setFlagsFromString('--expose-gc')
  const collect: unknown = runInNewContext('gc')
  if (typeof collect !== 'function') throw new Error('this Node gives no collector')
  collect()
  const { arrayBuffers, external } = process.memoryUsage()
  return arrayBuffers + external
}
