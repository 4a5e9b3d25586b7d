/** Values as Python prints them: in json.dumps with its spaces, and in repr. */
import { isRecord } from '../rehearsal.ts'

/** `json.dumps(value)`: a space behind comma and colon, everything beyond ASCII escaped. */
export const pythonJson = (value: unknown): string => {
  if (Array.isArray(value)) return `[${value.map(pythonJson).join(', ')}]`
  if (isRecord(value)) {
    const parts = Object.entries(value).map(([key, inner]) => `${ascii(key)}: ${pythonJson(inner)}`)
    return `{${parts.join(', ')}}`
  }
  return typeof value === 'string' ? ascii(value) : JSON.stringify(value)
}

const ascii = (text: string): string =>
  JSON.stringify(text).replace(
    /[\u007f-\uffff]/g,
    (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`,
  )

/** How vLLM shows an input: `repr` of scalars, a summary of what is larger. */
export const pythonText = (value: unknown): string => {
  if (value === null || value === undefined) return 'None'
  if (typeof value === 'boolean') return value ? 'True' : 'False'
  if (typeof value === 'string') return `'${value.slice(0, 100)}'`
  if (Array.isArray(value)) return `'<list of ${value.length} items>'`
  if (value instanceof PythonFloat) return value.toString()
  if (isRecord(value)) return `'<dict of ${Object.keys(value).length} items>'`
  return String(value)
}

/** A number that Python holds as a float: -1 is shown as -1.0. */
export class PythonFloat {
  readonly #value: number
  constructor(value: number) {
    this.#value = value
  }
  toString(): string {
    return Number.isInteger(this.#value) ? `${this.#value}.0` : String(this.#value)
  }
}
