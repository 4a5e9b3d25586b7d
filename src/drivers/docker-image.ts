/** An image as a list of files: hashed, packed and imported the same way each time. */
import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { readFile, stat } from 'node:fs/promises'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import type Docker from 'dockerode'
import { pack } from 'tar-stream'
import { z } from 'zod'
import { EngineError } from './docker-errors.ts'
import { bytesOf } from './docker-pull.ts'
import { linesOf } from './lines.ts'

export type ImageFile = {
  /** Without the leading slash. */
  readonly path: string
  readonly mode: number
  readonly from:
    | { readonly file: string }
    | { readonly text: string }
    | { readonly link: string }
    | { readonly directory: true }
}

export const CONTENT_LABEL = 'dev.penstock.content'

const sortedByPath = (files: readonly ImageFile[]): readonly ImageFile[] =>
  [...new Map(files.map((file) => [file.path, file])).values()].sort((a, b) =>
    a.path < b.path ? -1 : 1,
  )

/** Equal hash, equal image: what is hashed is all that the tar is made of. */
export const hashTree = async (files: readonly ImageFile[]): Promise<string> => {
  const hash = createHash('sha256')
  for (const { path, mode, from } of sortedByPath(files)) {
    hash.update(JSON.stringify([path, mode, 'file' in from ? await hashFile(from.file) : from]))
  }
  return hash.digest('hex').slice(0, 32)
}

const hashFile = async (path: string): Promise<string> =>
  createHash('sha256')
    .update(await readFile(path))
    .digest('hex')

/** A tar of the files in order of their paths, owned by root, dated 1970. */
const packTree = (files: readonly ImageFile[]): Readable => {
  const tar = pack()
  const add = async (): Promise<void> => {
    for (const { path, mode, from } of sortedByPath(files)) {
      const base = { name: path, mode, mtime: new Date(0), uid: 0, gid: 0 }
      if ('file' in from) {
        const { size } = await stat(from.file)
        await pipeline(createReadStream(from.file), tar.entry({ ...base, size }))
      } else if ('text' in from) tar.entry(base, from.text)
      else if ('link' in from) tar.entry({ ...base, type: 'symlink', linkname: from.link })
      else tar.entry({ ...base, type: 'directory' })
    }
    tar.finalize()
  }
  add().catch((error: unknown) => tar.destroy(error instanceof Error ? error : undefined))
  return Readable.from(tar, { objectMode: false })
}

export type ImportAsk = {
  readonly docker: Docker
  /** With tag. */
  readonly image: string
  readonly files: readonly ImageFile[]
  readonly hash: string
  readonly signal: AbortSignal
}

const EventSchema = z.object({ error: z.string().optional() })

/** Makes the image in this engine; an image that had its name and is unused is removed. */
export const importTree = async (ask: ImportAsk): Promise<void> => {
  const { docker, image, files, hash, signal } = ask
  const before = await imageId(docker, image)
  const colon = image.lastIndexOf(':')
  const stream = await docker.importImage(packTree(files), {
    repo: image.slice(0, colon),
    tag: image.slice(colon + 1),
    changes: [`LABEL ${CONTENT_LABEL}=${hash}`, 'ENV PATH=/usr/local/bin:/usr/bin:/bin'],
    abortSignal: signal,
  })
  for await (const line of linesOf(bytesOf(stream, signal))) {
    const event = EventSchema.safeParse(line.trim() === '' ? {} : JSON.parse(line))
    if (event.data?.error !== undefined) throw new EngineError(event.data.error)
  }
  signal.throwIfAborted()
  if (before === null || before === (await imageId(docker, image))) return
  // Still in use by a container (409): it goes with the next build.
  await docker
    .getImage(before)
    .remove()
    .catch(() => undefined)
}

const imageId = async (docker: Docker, image: string): Promise<string | null> =>
  await docker
    .getImage(image)
    .inspect()
    .then(
      (info) => info.Id,
      () => null,
    )
