/**
 * The lines that an operator copies into a terminal. Names come from manifests, yet what is pasted
 * into a shell is quoted as if they were hostile.
 */
const EVERY_ADDRESS = ['0.0.0.0', '[::]']

/** `http://host:port/v1` as callers reach it from where this page was opened. */
export const baseUrl = (gatewayUrl: string, pageHost: string): string => {
  if (!URL.canParse(gatewayUrl)) return gatewayUrl
  const url = new URL(gatewayUrl)
  if (EVERY_ADDRESS.includes(url.hostname) && pageHost !== '') url.hostname = pageHost
  const path = url.pathname.replace(/\/+$/, '').replace(/\/v1$/, '')
  return `${url.origin}${path}/v1`
}

/** One POSIX shell word, whatever is in it. */
export const shellWord = (text: string): string => `'${text.replaceAll("'", `'\\''`)}'`

export const curlLines = (base: string, model: string): string => {
  const messages = [{ role: 'user', content: 'Why is the sky blue?' }]
  const body = JSON.stringify({ model, stream: true, messages })
  return [
    `curl -N ${shellWord(`${base}/chat/completions`)} \\`,
    '  -H "Authorization: Bearer $PENSTOCK_KEY" \\',
    "  -H 'Content-Type: application/json' \\",
    `  -d ${shellWord(body)}`,
  ].join('\n')
}

/** JSON strings are Python strings: every escape that JSON writes means the same there. */
export const pythonLines = (base: string, model: string): string =>
  [
    'import os',
    'from openai import OpenAI',
    '',
    'client = OpenAI(',
    `    base_url=${JSON.stringify(base)},`,
    '    api_key=os.environ["PENSTOCK_KEY"],',
    ')',
    'stream = client.chat.completions.create(',
    `    model=${JSON.stringify(model)},`,
    '    messages=[{"role": "user", "content": "Why is the sky blue?"}],',
    '    stream=True,',
    ')',
    'for chunk in stream:',
    '    if chunk.choices:',
    '        print(chunk.choices[0].delta.content or "", end="", flush=True)',
  ].join('\n')
