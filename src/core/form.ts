/**
 * What the gateway reads of a multipart form (RFC 7578): the fields `model` and `stream`, in bytes,
 * without copying the file beside them. As strict as it can be without refusing what clients send:
 * a form that we and the engine cut differently would be a way around routing and limits.
 */
import type { Ask, Range, Unreadable } from './body.ts'

/** The audio forms of the API have some ten fields. */
const PARTS_MAX = 200
const HEAD_BYTES_MAX = 4_096
const VALUE_BYTES_MAX = 1_000
const BOUNDARY = /^[0-9A-Za-z'()+_,\-./:=? ]{0,69}[0-9A-Za-z'()+_,\-./:=?]$/
const PARAMETER = /;[ \t]*([!#$%&'*+\-.^_`|~0-9A-Za-z]+)=("(?:[^"\\]|\\.)*"|[^\s;"]+)[ \t]*/y
const [CRLF, HEAD_END] = [Buffer.from('\r\n'), Buffer.from('\r\n\r\n')]
/** As pydantic reads a boolean, with which both engines declare the field. */
const TRUE = new Set(['true', '1', 'on', 't', 'y', 'yes'])
const FALSE = new Set(['false', '0', 'off', 'f', 'n', 'no'])

/** What the gateway needs to know of a form, or why it is refused. */
export const readForm = (bytes: Uint8Array, contentType: string): Ask | Unreadable => {
  const boundary = boundaryOf(contentType)
  if (boundary === null) return refuse('the content-type must be multipart/form-data; boundary=…')
  const body = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const fields = fieldsOf(body, boundary)
  if ('message' in fields) return fields
  const [model, stream] = [fields.get('model'), fields.get('stream')]
  if (model === undefined) return refuse('you must provide a model', 'model')
  const name = valueAt(body, model)
  if (name === null || name === '') return refuse('model must be a non-empty string', 'model')
  const word = stream === undefined ? 'false' : (valueAt(body, stream) ?? '').toLowerCase()
  if (!TRUE.has(word) && !FALSE.has(word)) return refuse('stream must be a boolean', 'stream')
  return {
    model: name,
    modelRange: model,
    stream: TRUE.has(word),
    choices: 1,
    start: 0,
    maxTokens: null,
    sequences: 1,
    usage: { possible: false, range: null, last: false, each: false },
    previous: null,
    fields: {},
  }
}

/**
 * The type that an engine is told: the boundary alone. With a `charset` beside it, it would read
 * other names of fields than we did (Starlette decodes them by it).
 */
export const formType = (contentType: string): string => {
  const boundary = boundaryOf(contentType)?.toString('latin1').slice(2) ?? ''
  return `multipart/form-data; boundary="${boundary}"`
}

/** The boundary, with its dashes; null: not a form, or one without a boundary. */
const boundaryOf = (contentType: string): Buffer | null => {
  const type = /^multipart\/form-data[ \t]*(?=;)/i.exec(contentType)
  if (type === null) return null
  const boundary = parametersOf(contentType.slice(type[0].length))?.get('boundary')
  return boundary !== undefined && BOUNDARY.test(boundary) ? Buffer.from(`--${boundary}`) : null
}

type Fields = ReadonlyMap<string, Range>

/** The values of the fields that count, each at most once. */
const fieldsOf = (body: Buffer, boundary: Buffer): Fields | Unreadable => {
  const fields = new Map<string, Range>()
  const delimiter = Buffer.concat([CRLF, boundary])
  // An empty line before the first boundary is allowed, and nothing else (RFC 2046 5.1.1).
  let at = body.indexOf(CRLF) === 0 ? CRLF.length : 0
  if (body.indexOf(boundary, at) !== at) return damaged(at)
  for (let parts = 0; ; parts += 1) {
    at += boundary.length
    if (body[at] === 0x2d && body[at + 1] === 0x2d) return fields
    if (parts === PARTS_MAX) return refuse(`the form has more than ${PARTS_MAX} fields`)
    if (body.indexOf(CRLF, at) !== at) return damaged(at)
    const headEnd = body.indexOf(HEAD_END, at)
    if (headEnd === -1 || headEnd - at > HEAD_BYTES_MAX) return damaged(at)
    const start = headEnd + HEAD_END.length
    // What follows the empty line is content, were it a boundary: python-multipart reads it so.
    const end = body.indexOf(delimiter, start)
    if (end === -1) return damaged(start)
    const name = nameOf(body.toString('latin1', at + CRLF.length, headEnd))
    if (name === null) return damaged(at)
    if (name === 'model' || name === 'stream') {
      if (fields.has(name)) return refuse(`"${name}" appears more than once in the form`, name)
      fields.set(name, { start, end })
    }
    at = end + CRLF.length
  }
}

/** The field's name, from the part's headers; null: what it is cannot be said for certain. */
const nameOf = (head: string): string | null => {
  const lines = head.split('\r\n')
  // A folded line, or a stray CR or LF, which some readers take for the end of a line.
  if (lines.some((line) => !/^[!-9;-~]+:[^\r\n]*$/.test(line))) return null
  const named = (name: string) => lines.filter((line) => line.toLowerCase().startsWith(`${name}:`))
  const [disposition, second] = named('content-disposition')
  if (disposition === undefined || second !== undefined) return null
  const kind = /^[^:]*:[ \t]*form-data[ \t]*(?=;)/i.exec(disposition)
  if (kind === null) return null
  const parameters = parametersOf(disposition.slice(kind[0].length))
  const name = parameters?.get('name')
  // `name*` is not for forms (RFC 7578 4.2), and escapes are read in more than one way.
  if (name === undefined || name.includes('\\') || parameters?.has('name*') === true) return null
  const plain = named('content-transfer-encoding').every((line) =>
    /: *(7bit|8bit|binary)$/i.test(line),
  )
  return plain ? name : null
}

/** Of a header, after its value; names in lower case. Null: not readable, or one is there twice. */
const parametersOf = (text: string): ReadonlyMap<string, string> | null => {
  const parameters = new Map<string, string>()
  PARAMETER.lastIndex = 0
  while (PARAMETER.lastIndex < text.length) {
    const found = PARAMETER.exec(text)
    const [name, value] = [found?.[1]?.toLowerCase(), found?.[2]]
    if (name === undefined || value === undefined || parameters.has(name)) return null
    parameters.set(name, value.startsWith('"') ? value.slice(1, -1) : value)
  }
  return parameters
}

const valueAt = (body: Buffer, { start, end }: Range): string | null =>
  end - start > VALUE_BYTES_MAX ? null : body.toString('utf8', start, end)

const refuse = (message: string, param: string | null = null): Unreadable => ({ message, param })

const damaged = (at: number): Unreadable => refuse(`the form cannot be read (at byte ${at})`)
