/** A request body's text to an object, refused in the words of Python's json module. Pure. */
import { isRecord } from '../rehearsal.ts'
import { type Body, type Refusal, refusal } from './wire.ts'

/** Python's decoder recurses: its limit is 1000 frames, some of them taken. */
const DEPTH_MAX = 900

export const parseBody = (
  text: string,
):
  | { readonly ok: true; readonly value: Body }
  | { readonly ok: false; readonly refusal: Refusal } => {
  // FastAPI answers so to a RecursionError.
  if (depthOf(text) > DEPTH_MAX) return refusal('value', 400, 'There was an error parsing the body')
  try {
    const value: unknown = JSON.parse(text)
    if (isRecord(value)) return { ok: true, value }
    return {
      ok: false,
      refusal: {
        kind: 'field',
        status: 400,
        message: 'Input should be a valid dictionary',
        param: 'body',
        value,
        detail: 'model_attributes_type',
      },
    }
  } catch (error) {
    const said = error instanceof Error ? error.message : String(error)
    const at = /position (\d+)/.exec(said)?.[1] ?? String(text.length)
    return refusal('json', 400, complaint(said), `body.${at}`)
  }
}

/** V8's complaints as Python's decoder puts them. */
const complaint = (said: string): string => {
  if (/property name/.test(said)) return 'Expecting property name enclosed in double quotes'
  if (/Expected ':'/.test(said)) return "Expecting ':' delimiter"
  if (/Expected ','/.test(said)) return "Expecting ',' delimiter"
  if (/Unterminated string/.test(said)) return 'Unterminated string starting at'
  if (/control character/.test(said)) return 'Invalid control character at'
  if (/after JSON/.test(said)) return 'Extra data'
  if (/escape/.test(said)) return 'Invalid \\escape'
  return 'Expecting value'
}

/** How deep brackets nest outside of strings; no more exact than broken JSON allows. */
const depthOf = (text: string): number => {
  if (text.length <= DEPTH_MAX) return 0
  let [depth, deepest, quoted] = [0, 0, false]
  for (let index = 0; index < text.length; index += 1) {
    const code = text.charCodeAt(index)
    if (quoted) {
      if (code === BACKSLASH) index += 1
      else if (code === QUOTE) quoted = false
    } else if (code === QUOTE) quoted = true
    else if (code === BRACKET || code === BRACE) {
      depth += 1
      if (depth > deepest) deepest = depth
    } else if (code === BRACKET + 2 || code === BRACE + 2) depth -= 1
  }
  return deepest
}

const [QUOTE, BACKSLASH, BRACKET, BRACE] = [34, 92, 91, 123]
