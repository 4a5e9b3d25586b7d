/** Where GPUs' readings lie: a small file a GPU, for every process of this machine to find. */
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { mkdir, rename, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { isRecord } from './rehearsal.ts'

type Stored = Readonly<Record<string, unknown>>

export type GpuFiles = {
  /** Null: nobody has written of this GPU. */
  read(node: string, gpu: number): Stored | null
  write(node: string, gpu: number, value: Stored): Promise<void>
  /** The last word of a process that ends; null: it leaves nothing behind. */
  leave(node: string, gpu: number, value: Stored | null): void
}

const directory = (node: string): string =>
  join(process.env.TMPDIR ?? tmpdir(), 'penstock-rehearsal', encodeURIComponent(node))

const file = (node: string, gpu: number): string => join(directory(node), `gpu-${gpu}.json`)

export const gpuFiles: GpuFiles = {
  read: (node, gpu) => {
    try {
      const value: unknown = JSON.parse(readFileSync(file(node, gpu), 'utf8'))
      return isRecord(value) ? value : null
    } catch {
      // No file, or half a file of a process that was killed: nobody uses this GPU.
      return null
    }
  },
  write: async (node, gpu, value) => {
    const path = file(node, gpu)
    await mkdir(directory(node), { recursive: true })
    await writeFile(`${path}.${process.pid}`, JSON.stringify(value))
    await rename(`${path}.${process.pid}`, path)
  },
  leave: (node, gpu, value) => {
    const path = file(node, gpu)
    rmSync(`${path}.${process.pid}`, { force: true })
    if (value === null) {
      rmSync(path, { force: true })
      return
    }
    mkdirSync(directory(node), { recursive: true })
    writeFileSync(path, JSON.stringify(value))
  },
}
