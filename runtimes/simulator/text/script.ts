/**
 * What to answer, told by a file in place of the corpus: for tests that need certain words, a
 * certain call of a tool or a certain end. Pure but for the reading of the file.
 */
import { readFileSync } from 'node:fs'
import { isRecord } from '../rehearsal.ts'

export type ScriptLine = {
  /** The line answers a request whose last words from the caller hold this; '' holds always. */
  readonly match: string
  readonly reasoning: string
  readonly content: string
  readonly tool: { readonly name: string; readonly arguments: string } | null
  /** `length`: the answer stops there as if max_tokens had cut it. Null: as it comes. */
  readonly finish: 'stop' | 'length' | 'tool_calls' | null
  /** Says the caller's own last words instead of `content`. */
  readonly echo: boolean
}

export type Script =
  | { readonly ok: true; readonly lines: readonly ScriptLine[] }
  | { readonly ok: false; readonly message: string }

const FIELDS = ['match', 'reasoning', 'content', 'tool', 'finish', 'echo']

/** The text of a script: a JSON list of lines, of which the first that matches answers. */
export const readScript = (text: string): Script => {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (error) {
    return bad(`not JSON: ${error instanceof Error ? error.message : String(error)}`)
  }
  if (!Array.isArray(value)) return bad('expected a list of lines')
  const lines: ScriptLine[] = []
  for (const [index, line] of value.entries()) {
    const read = readLine(line)
    if (typeof read === 'string') return bad(`line ${index}: ${read}`)
    lines.push(read)
  }
  return { ok: true, lines }
}

const bad = (message: string): Script => ({ ok: false, message })

const readLine = (line: unknown): ScriptLine | string => {
  if (!isRecord(line)) return 'expected an object'
  const unknown = Object.keys(line).find((key) => !FIELDS.includes(key))
  if (unknown !== undefined) return `unknown field \`${unknown}\`, expected ${FIELDS.join(', ')}`
  const { match = '', reasoning = '', content = '', finish = null, echo = false } = line
  if (typeof match !== 'string') return '`match` is no text'
  if (typeof reasoning !== 'string') return '`reasoning` is no text'
  if (typeof content !== 'string') return '`content` is no text'
  if (typeof echo !== 'boolean') return '`echo` is neither true nor false'
  const tool = line.tool === undefined ? null : readTool(line.tool)
  if (typeof tool === 'string') return tool
  if (finish !== null && finish !== 'stop' && finish !== 'length' && finish !== 'tool_calls') {
    return '`finish` is none of stop, length, tool_calls'
  }
  if (finish === 'tool_calls' && tool === null) return '`finish: tool_calls` needs a `tool`'
  return { match, reasoning, content, tool, finish, echo }
}

const readTool = (tool: unknown): ScriptLine['tool'] | string => {
  if (!isRecord(tool) || typeof tool.name !== 'string') return '`tool` needs a `name`'
  const given = tool.arguments ?? {}
  return {
    name: tool.name,
    arguments: typeof given === 'string' ? given : JSON.stringify(given),
  }
}

/** Lines of the script at a path; no path, no lines. */
export const scriptAt = (path: string | undefined): Script => {
  if (path === undefined) return { ok: true, lines: [] }
  let text: string
  try {
    text = readFileSync(path, 'utf8')
  } catch (error) {
    return bad(`script ${path}: ${error instanceof Error ? error.message : String(error)}`)
  }
  const script = readScript(text)
  return script.ok ? script : bad(`script ${path}: ${script.message}`)
}
