/** /tokenize and /detokenize. */
import { pieces, tokenId } from '../text/tokens.ts'
import { wrongType } from './fields.ts'
import { type Handler, jsonBody } from './generate.ts'
import { chatPrompt } from './prompt.ts'
import type { Service } from './service.ts'
import { type Body, sendJson } from './wire.ts'

/** Ids are hashes: what they stood for is kept, oldest out first. */
const KNOWN_MAX = 65_536
const known = new Map<number, string>()

const idOf = (piece: string, vocabulary: number): number => {
  const id = tokenId(piece) % vocabulary
  if (known.get(id) !== piece) {
    if (known.size >= KNOWN_MAX) {
      const [oldest] = known.keys()
      if (oldest !== undefined) known.delete(oldest)
    }
    known.set(id, piece)
  }
  return id
}

/** An id this process never gave out still has to be some text. */
const textOf = (id: number): string => known.get(id) ?? ` t${id}`

const tokensOf = (service: Service, body: Body): readonly number[] => {
  const vocabulary = service.rehearsal.architecture.vocabulary
  const text = body.prompt ?? body.text
  if (typeof text === 'string') return pieces(text).map((piece) => idOf(piece, vocabulary))
  if (!Array.isArray(body.messages)) return []
  const { tokens } = chatPrompt(body, service.settings.contextTokens)
  return [...tokens.toArray()].map((id) => id % vocabulary)
}

export const tokenize: Handler = async (service, request, response) => {
  const { settings, dialect } = service
  const body = await jsonBody(request, response, dialect)
  if (body === null) return
  const text = body.prompt ?? body.text
  if (typeof text !== 'string' && !Array.isArray(body.messages)) {
    return sendJson(response, dialect.error(wrongType('prompt', 'string', text)))
  }
  const tokens = tokensOf(service, body)
  const shown = body.return_token_strs === true ? tokens.map(textOf) : null
  const answer = { count: tokens.length, max_model_len: settings.contextTokens, tokens }
  sendJson(response, {
    status: 200,
    body: settings.engine === 'vllm' ? { ...answer, token_strs: shown } : answer,
  })
}

/** vLLM calls the text a prompt, SGLang a text; SGLang also takes a list of lists. */
export const detokenize: Handler = async (service, request, response) => {
  const { settings, dialect } = service
  const body = await jsonBody(request, response, dialect)
  if (body === null) return
  const { tokens } = body
  const lists = settings.engine === 'sglang' && Array.isArray(tokens) && tokens.every(Array.isArray)
  if (!Array.isArray(tokens)) {
    return sendJson(response, dialect.error(wrongType('tokens', 'array', tokens)))
  }
  const flat = lists ? tokens.flat() : tokens
  const wrong = flat.findIndex((id) => !Number.isInteger(id) || id < 0)
  if (wrong >= 0) {
    return sendJson(response, dialect.error(wrongType(`tokens.${wrong}`, 'integer', flat[wrong])))
  }
  const text = (ids: readonly unknown[]) => ids.map((id) => textOf(Number(id))).join('')
  const said = lists && tokens.length > 0 ? tokens.map(text) : text(tokens)
  sendJson(response, {
    status: 200,
    body: settings.engine === 'vllm' ? { prompt: said } : { text: said },
  })
}
