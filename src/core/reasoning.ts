/**
 * The name under which an engine gives the model's thinking (engines.md 4.1): a client that asked
 * one model and is answered by its stand-in on another engine must find it where it looks.
 */

const FIELD: Readonly<Record<string, string>> = { vllm: 'reasoning', sglang: 'reasoning_content' }

export type Rename = { readonly from: Buffer; readonly to: Buffer }

/** Null: both engines use the same name, or one of them is not known. */
export const reasoningRename = (asked: string, answers: string): Rename | null => {
  const [to, from] = [FIELD[asked], FIELD[answers]]
  if (to === undefined || from === undefined || to === from) return null
  return { from: Buffer.from(`"${from}":`), to: Buffer.from(`"${to}":`) }
}

/**
 * `bytes` with the key renamed: whole events or a whole body. Inside a JSON string every quote is
 * escaped, so these bytes can only be a key. Where the other name is there already (vLLM 0.12 to
 * 0.15 sends both), nothing is changed.
 */
export const renamed = (bytes: Uint8Array, { from, to }: Rename): Uint8Array => {
  const source = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  let at = source.indexOf(from)
  if (at === -1 || source.includes(to)) return bytes
  const parts: Uint8Array[] = []
  let start = 0
  while (at !== -1) {
    parts.push(source.subarray(start, at), to)
    start = at + from.length
    at = source.indexOf(from, start)
  }
  parts.push(source.subarray(start))
  return Buffer.concat(parts)
}
