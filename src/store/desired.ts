/** What was last applied: the files, whole, so that a restarted Penstock wants the same again. */
import { z } from 'zod'
import type { InputFiles } from '../core/admin.ts'
import { PenstockError } from '../errors.ts'
import type { Database } from './sqlite.ts'

/** Older generations are kept for looking back. */
const GENERATIONS_MAX = 20
const BYTES_MAX = 16 * 1024 * 1024

export type Desired = {
  readonly generation: number
  readonly savedAtMs: number
  readonly rehearsal: boolean
  readonly files: InputFiles
}

const File = z.object({ path: z.string(), text: z.string() })
const Files = z.object({
  inventory: File.nullable(),
  manifests: z.array(File),
  stopped: z.array(z.string()).default([]),
})

export const loadDesired = async (database: Database): Promise<Desired | null> => {
  const row = await database.query
    .selectFrom('desired')
    .selectAll()
    .orderBy('generation', 'desc')
    .limit(1)
    .executeTakeFirst()
  if (row === undefined) return null
  return {
    generation: row.generation,
    savedAtMs: row.saved_at_ms,
    rehearsal: row.rehearsal !== 0,
    files: Files.parse(JSON.parse(row.files)),
  }
}

/** Saves one generation and returns its number, which only ever rises. */
export const saveDesired = (database: Database, desired: Omit<Desired, 'generation'>): number => {
  const files = JSON.stringify(desired.files)
  if (Buffer.byteLength(files) > BYTES_MAX) {
    const message = `the manifests are larger than ${BYTES_MAX / 1024 / 1024} MiB together`
    throw new PenstockError('invalid_input', message)
  }
  const { query } = database
  return database.transaction(() => {
    const insert = query.insertInto('desired').values({
      saved_at_ms: desired.savedAtMs,
      rehearsal: desired.rehearsal ? 1 : 0,
      files,
    })
    const generation = database.run(insert).lastRowId
    const oldest = generation - GENERATIONS_MAX
    database.run(query.deleteFrom('desired').where('generation', '<=', oldest))
    return generation
  })
}
