/**
 * One text file from disk, with all that can stand in the way: a directory, a pipe, a link that
 * leads round, 50 MB, another encoding. Each becomes an issue of the file; nothing throws.
 */
import { constants } from 'node:fs'
import { type FileHandle, open, stat } from 'node:fs/promises'
import type { InputFile, Issue } from '../core/admin.ts'
import { TEXT_MAX } from './yaml.ts'

/** An issue of a file as a whole stands at its beginning. */
export const wholeFile = (file: string, message: string): Issue => ({
  file,
  line: 1,
  column: 1,
  path: '',
  message,
})

/** A regular file of at most 1 MiB in UTF-8, as text. */
export const readText = async (file: string): Promise<InputFile | Issue> => {
  let bytes: Buffer | string
  try {
    bytes = await readBytes(file)
  } catch (error) {
    return wholeFile(file, fileProblem(error))
  }
  return typeof bytes === 'string' ? wholeFile(file, bytes) : decode(file, bytes)
}

const tooLarge = (size: number): string =>
  `is ${(size / 1024 / 1024).toFixed(1)} MiB large: expected at most 1 MiB`

/** The bytes, or why they are not read. A large file is not read at all. */
const readBytes = async (file: string): Promise<Buffer | string> => {
  const { size } = await stat(file)
  if (size > TEXT_MAX) return tooLarge(size)
  // Without O_NONBLOCK, opening a named pipe would wait for a writer.
  const handle = await open(file, constants.O_RDONLY | constants.O_NONBLOCK)
  try {
    return await readRegular(handle)
  } finally {
    await handle.close()
  }
}

const readRegular = async (handle: FileHandle): Promise<Buffer | string> => {
  const found = await handle.stat()
  if (found.isDirectory()) return 'is a directory: expected a file'
  if (!found.isFile()) return 'is not a regular file'
  // The file may grow meanwhile: never more than the limit and one byte.
  const buffer = Buffer.alloc(TEXT_MAX + 1)
  let length = 0
  while (length < buffer.length) {
    const { bytesRead } = await handle.read(buffer, length, buffer.length - length, length)
    if (bytesRead === 0) break
    length += bytesRead
  }
  return length > TEXT_MAX ? tooLarge(length) : buffer.subarray(0, length)
}

const decode = (file: string, bytes: Buffer): InputFile | Issue => {
  const [first, second] = bytes
  if ((first === 0xff && second === 0xfe) || (first === 0xfe && second === 0xff)) {
    return wholeFile(file, 'is UTF-16: save it as UTF-8')
  }
  const valid = validLength(bytes)
  if (valid === bytes.length) return { path: file, text: new TextDecoder().decode(bytes) }
  const before = new TextDecoder().decode(bytes.subarray(0, valid)).split('\n')
  const byte = (bytes[valid] ?? 0).toString(16).padStart(2, '0')
  const message = `is not UTF-8: byte 0x${byte}; save it as UTF-8`
  return { ...wholeFile(file, message), line: before.length, column: columnAfter(before) }
}

const columnAfter = (lines: readonly string[]): number => (lines.at(-1)?.length ?? 0) + 1

/** Bytes up to the first one that is not UTF-8, by halving: validity only ends once. */
const validLength = (bytes: Buffer): number => {
  if (decodes(bytes, false)) return bytes.length
  let [good, bad] = [0, bytes.length + 1]
  while (bad - good > 1) {
    const middle = (good + bad) >> 1
    if (middle <= bytes.length && decodes(bytes.subarray(0, middle), true)) good = middle
    else bad = middle
  }
  return good === bytes.length ? good - 1 : good
}

/** `open`: a character may be cut at the end. */
const decodes = (bytes: Buffer, open: boolean): boolean => {
  try {
    new TextDecoder('utf-8', { fatal: true }).decode(bytes, { stream: open })
    return true
  } catch {
    return false
  }
}

const REASONS: ReadonlyMap<string, string> = new Map([
  ['ENOENT', 'no such file or directory'],
  ['ENOTDIR', 'it, or a part of its path, is not a directory'],
  ['EISDIR', 'is a directory: expected a file'],
  ['EACCES', 'no permission to read it'],
  ['EPERM', 'no permission to read it'],
  ['ELOOP', 'symbolic links lead round in a circle'],
  ['ENAMETOOLONG', 'the name is too long'],
  ['ERR_INVALID_ARG_VALUE', 'a path cannot hold a NUL byte'],
])

/** Why the system did not hand out a file, in words. */
export const fileProblem = (error: unknown): string => {
  const code = error instanceof Error && 'code' in error ? String(error.code) : ''
  return REASONS.get(code) ?? `cannot be read: ${code || String(error)}`
}
