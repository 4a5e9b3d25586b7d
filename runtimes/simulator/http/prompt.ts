/** Messages and prompts to tokens, in the shape of a ChatML template. */
import { isRecord } from '../rehearsal.ts'
import { TokenList, tokenId } from '../text/tokens.ts'

export type Prompt = {
  readonly tokens: TokenList
  /** What the user said last, for topic and language; bounded. */
  readonly text: string
  /** The whole text of a legacy prompt, for `echo`. */
  readonly echo: string
}

type Body = Readonly<Record<string, unknown>>

const START = tokenId('<|im_start|>')
const END = tokenId('<|im_end|>')
const THINK = tokenId('<think>')
const TOPIC_CHARACTERS = 8000

/** Images and other parts count as this many tokens; their bytes are not looked at. */
const PART_TOKENS = 256

export const chatPrompt = (body: Body, keep: number): Prompt => {
  const tokens = new TokenList(keep)
  const messages = Array.isArray(body.messages) ? body.messages : []
  if (Array.isArray(body.tools) && body.tool_choice !== 'none') {
    tokens.push(START)
    tokens.text(`system\n# Tools\n${JSON.stringify(body.tools)}`)
    tokens.push(END)
  }
  let last = ''
  const continued = body.continue_final_message === true
  for (const [index, message] of messages.entries()) {
    if (!isRecord(message)) continue
    tokens.push(START)
    tokens.text(`${typeof message.role === 'string' ? message.role : 'user'}\n`)
    const text = contentText(message.content, tokens)
    if (Array.isArray(message.tool_calls)) tokens.text(JSON.stringify(message.tool_calls))
    if (!continued || index < messages.length - 1) tokens.push(END)
    if (message.role !== 'assistant' && text !== '') last = text
  }
  if (!continued) {
    tokens.push(START)
    tokens.text('assistant\n')
    tokens.push(THINK)
  }
  return { tokens, text: last.slice(-TOPIC_CHARACTERS), echo: '' }
}

const contentText = (content: unknown, tokens: TokenList): string => {
  if (typeof content === 'string') {
    tokens.text(content)
    return content
  }
  if (!Array.isArray(content)) return ''
  let text = ''
  for (const part of content) {
    if (isRecord(part) && typeof part.text === 'string') {
      tokens.text(part.text)
      text += part.text
    } else for (let index = 0; index < PART_TOKENS; index += 1) tokens.push(THINK + index)
  }
  return text
}

/** A string, several strings, one list of token ids, or several lists. */
export const completionPrompts = (body: Body, keep: number): readonly Prompt[] => {
  const { prompt } = body
  if (typeof prompt === 'string') return [textPrompt(prompt, keep)]
  if (!Array.isArray(prompt) || prompt.length === 0) return [textPrompt('', keep)]
  if (prompt.every((token) => typeof token === 'number')) return [idPrompt(prompt, keep)]
  return prompt.map((one) => {
    if (typeof one === 'string') return textPrompt(one, keep)
    return idPrompt(Array.isArray(one) ? one.filter((t) => typeof t === 'number') : [], keep)
  })
}

const textPrompt = (text: string, keep: number): Prompt => {
  const tokens = new TokenList(keep)
  tokens.text(text)
  if (tokens.count === 0) tokens.push(START)
  return { tokens, text: text.slice(-TOPIC_CHARACTERS), echo: text }
}

const idPrompt = (ids: readonly number[], keep: number): Prompt => {
  const tokens = new TokenList(keep)
  for (const id of ids) tokens.push(id)
  if (tokens.count === 0) tokens.push(START)
  return { tokens, text: '', echo: '' }
}
