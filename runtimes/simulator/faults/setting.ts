/** Faults as a setting at start: PENSTOCK_FAULTS, a JSON list, or a file's path after `@`. */
import { readFileSync } from 'node:fs'
import { type Fault, readFault } from './fault.ts'

const FAULTS_VARIABLE = 'PENSTOCK_FAULTS'

type Read =
  | { readonly ok: true; faults: readonly Fault[] }
  | { readonly ok: false; message: string }

/** Every fault of the list or the first thing that is wrong with it. */
export const readFaults = (setting: string | undefined): Read => {
  if (setting === undefined || setting.trim() === '') return { ok: true, faults: [] }
  try {
    const text = setting.startsWith('@') ? readFileSync(setting.slice(1), 'utf8') : setting
    const list: unknown = JSON.parse(text)
    if (!Array.isArray(list)) return { ok: false, message: `${FAULTS_VARIABLE}: expected a list` }
    return readList(list)
  } catch (error) {
    const what = error instanceof Error ? error.message : String(error)
    return { ok: false, message: `${FAULTS_VARIABLE}: ${what}` }
  }
}

const readList = (list: readonly unknown[]): Read => {
  const faults: Fault[] = []
  for (const [index, value] of list.entries()) {
    const read = readFault(value)
    if (!read.ok) return { ok: false, message: `${FAULTS_VARIABLE}[${index}]: ${read.message}` }
    faults.push(read.fault)
  }
  return { ok: true, faults }
}
