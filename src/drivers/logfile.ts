/**
 * Log files of ranks on this machine. Engines write to the file themselves, so that no pipe ties
 * them to Penstock; the price is that Penstock bounds the file from outside.
 */
import { copyFile, open, rename, stat, truncate } from 'node:fs/promises'
import { systemClock } from '../clock.ts'
import { LineSplitter, LOG_BYTES_MAX, tail } from './lines.ts'

/** A vLLM under load logs about 150 bytes each 10 s: years. Only a fault writes this much. */
const LOG_FILE_BYTES_MAX = 64 * 1024 * 1024
const FOLLOW_MS = 150
const READ_BYTES = 64 * 1024

const sizeOf = async (path: string): Promise<{ bytes: number; inode: number } | null> => {
  const found = await stat(path).catch(() => null)
  return found === null ? null : { bytes: found.size, inode: found.ino }
}

/** At each start: the log of the run before is kept once, as `.1`. */
export const rotate = async (path: string): Promise<void> => {
  if ((await sizeOf(path)) !== null) await rename(path, `${path}.1`)
}

/**
 * Bounds a growing log. The engine holds the file open for appending (O_APPEND), so after the
 * truncation it goes on at the new end; lines written between copy and truncation are lost.
 */
export const bound = async (path: string, bytesMax = LOG_FILE_BYTES_MAX): Promise<void> => {
  const size = await sizeOf(path)
  if (size === null || size.bytes <= bytesMax) return
  await copyFile(path, `${path}.1`)
  await truncate(path, 0)
}

/** The last `lines` lines and the offset just behind them, reading at most 1 MiB. */
export const readTail = async (
  path: string,
  lines: number,
): Promise<{ readonly text: string; readonly offset: number; readonly inode: number }> => {
  const size = await sizeOf(path)
  if (size === null) return { text: '', offset: 0, inode: 0 }
  const from = Math.max(0, size.bytes - LOG_BYTES_MAX)
  const file = await open(path, 'r')
  try {
    const buffer = Buffer.alloc(size.bytes - from)
    const { bytesRead } = await file.read(buffer, 0, buffer.length, from)
    const text = buffer.subarray(0, bytesRead).toString('utf8')
    // A first line that is cut in the middle is left out.
    const whole = from === 0 ? text : text.slice(text.indexOf('\n') + 1)
    return { text: tail(whole, lines), offset: from + bytesRead, inode: size.inode }
  } finally {
    await file.close()
  }
}

/** Lines from the tail on, until aborted, replaced by a new log, or `ended` and all was read. */
export async function* followFile(
  path: string,
  lines: number,
  signal: AbortSignal,
  ended: () => Promise<boolean>,
): AsyncGenerator<string> {
  const start = await readTail(path, lines)
  if (start.text !== '') yield* start.text.split('\n')
  const splitter = new LineSplitter()
  let offset = start.offset
  while (!signal.aborted) {
    // Asked before reading: what was written before the end is then surely read.
    const last = await ended()
    const size = await sizeOf(path)
    if (size === null || (start.inode !== 0 && size.inode !== start.inode)) break
    if (size.bytes < offset) offset = 0
    for (;;) {
      const chunk = await readAt(path, offset)
      if (chunk.length === 0) break
      offset += chunk.length
      yield* splitter.push(chunk)
      if (signal.aborted) return
    }
    if (last) break
    await systemClock.sleep(FOLLOW_MS, signal).catch(() => undefined)
  }
  if (!signal.aborted) yield* splitter.end()
}

const readAt = async (path: string, offset: number): Promise<Buffer> => {
  const file = await open(path, 'r')
  try {
    const buffer = Buffer.alloc(READ_BYTES)
    const { bytesRead } = await file.read(buffer, 0, READ_BYTES, offset)
    return buffer.subarray(0, bytesRead)
  } finally {
    await file.close()
  }
}
