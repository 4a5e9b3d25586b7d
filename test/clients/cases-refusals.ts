/** Requests that are wrong in themselves: nobody tries them again. */
import { QWQ_ONLY_KEY } from '../support/gateway.ts'
import {
  type Case,
  call,
  fields,
  HELLO,
  HTML,
  json,
  MODEL,
  NO_CODE,
  page,
  refusal,
  SDK_CODE,
  says,
  sight,
  stream,
} from './cases.ts'

const body = (more: Readonly<Record<string, unknown>>): string =>
  JSON.stringify({ model: MODEL, messages: [{ role: 'user', content: 'hello' }], ...more })

const post = (raw: string) => call({ do: 'post', path: '/chat/completions', raw })
const hello = () => HELLO
const tooLong = {
  message: "This model's maximum context length is 2048 tokens. However, your prompt is longer.",
  type: 'BadRequestError',
  param: 'input_tokens',
  code: 400,
}

const wrongKey = fields('Incorrect API key provided: sk-wrong. You can find your API key at …', {
  code: 'invalid_api_key',
})
const noKey = fields("You didn't provide an API key. You need to provide your API key in …")
const noAccess = fields('Project `proj_x` does not have access to model `gpt-4o`', {
  code: 'model_not_found',
})
const noModel = fields('The model `gpt-9` does not exist or you do not have access to it.', {
  code: 'model_not_found',
})
const notJson = fields('We could not parse the JSON body of your request. (HINT: …)')
const wrongType = fields("Invalid type for 'temperature': expected a decimal, but got a string …", {
  param: 'temperature',
  code: 'invalid_type',
})
const context = fields("This model's maximum context length is 8192 tokens. However, …", {
  param: 'messages',
  code: 'context_length_exceeded',
})
const notFound = fields('Invalid URL (POST /v1/chat/completion)')
const notAllowed = fields('Not allowed to GET on /v1/chat/completions. (HINT: …)')
const ENGINE = 'the engine gives no code that says more'

const keys: readonly Case[] = [
  {
    name: 'a wrong key',
    call: call({ key: 'sk-ps-wrong' }),
    openai: {
      answer: says(401, wrongKey),
      source: 'wandb/openui#199',
      sight: refusal('AuthenticationError', 401, wrongKey),
    },
    engine: hello,
    sight: refusal('AuthenticationError', 401, wrongKey),
    engineSees: 0,
  },
  {
    name: 'no key',
    call: call({ key: null }),
    openai: {
      answer: says(401, noKey),
      source: '0xacx/chatGPT-shell-cli#60',
      sight: refusal('AuthenticationError', 401, noKey),
    },
    engine: hello,
    sight: refusal('AuthenticationError', 401, { ...noKey, code: 'invalid_api_key' }),
    engineSees: 0,
    differs: NO_CODE,
  },
  {
    name: 'a key that may not use this model',
    call: call({ key: QWQ_ONLY_KEY, model: 'deepseek-r1' }),
    openai: {
      answer: says(403, noAccess),
      source: 'Aider-AI/aider#1903',
      sight: refusal('PermissionDeniedError', 403, noAccess),
    },
    engine: hello,
    route: { model: 'deepseek-r1' },
    sight: refusal('PermissionDeniedError', 403, {
      ...noAccess,
      param: 'model',
      code: 'model_not_allowed',
    }),
    engineSees: 0,
    differs: 'says that the model is there and the key is not for it',
  },
  {
    name: 'an unknown model',
    call: call({ model: 'gpt-9' }),
    openai: {
      answer: says(404, noModel),
      source: 'timkmecl/chatgpt-vscode#45',
      sight: refusal('NotFoundError', 404, noModel),
    },
    engine: hello,
    sight: refusal('NotFoundError', 404, { ...noModel, param: 'model' }),
    engineSees: 0,
    says: 'this key may use qwq-32b',
    differs: 'names the parameter, as OpenAI does in models.retrieve',
  },
  {
    name: 'models.retrieve of an unknown model',
    call: call({ do: 'model', model: 'gpt-9' }),
    openai: {
      answer: says(404, { ...noModel, param: 'model' }),
      source: null,
      sight: refusal('NotFoundError', 404, { ...noModel, param: 'model' }),
    },
    engine: hello,
    sight: refusal('NotFoundError', 404, { ...noModel, param: 'model' }),
    engineSees: 0,
  },
]

const bodies: readonly Case[] = [
  {
    name: 'a body that is not JSON',
    call: post(`{"model":"${MODEL}",`),
    openai: {
      answer: says(400, notJson),
      source: 'ChatGPTNextWeb/NextChat#4064',
      sight: refusal('BadRequestError', 400, notJson),
    },
    engine: hello,
    sight: refusal('BadRequestError', 400, { ...notJson, code: 'invalid_request' }),
    engineSees: 0,
    differs: NO_CODE,
  },
  {
    name: 'the key `model` twice',
    call: post(`{"model":"${MODEL}","model":"other","messages":[]}`),
    openai: {
      answer: HELLO,
      source: null,
      sight: sight(null),
    },
    engine: hello,
    sight: refusal('BadRequestError', 400, { ...notJson, param: 'model', code: 'invalid_request' }),
    engineSees: 0,
    differs: 'two readers of such a body may route and bill it differently',
  },
  {
    name: 'a parameter of the wrong type, refused by vLLM',
    call: post(body({ temperature: 'hot' })),
    openai: {
      answer: says(400, wrongType),
      source: 'diffbot/code-gpt-docs#273',
      sight: refusal('BadRequestError', 400, wrongType),
    },
    engine: () =>
      json(
        400,
        '{"error":{"message":"not a number","type":"Bad Request","param":"temperature","code":400}}',
      ),
    sight: refusal('BadRequestError', 400, { ...wrongType, code: null }),
    engineSees: 1,
    says: 'not a number',
    differs: ENGINE,
  },
  {
    name: 'the same, refused by SGLang',
    call: post(body({ temperature: 'hot' })),
    openai: {
      answer: says(400, wrongType),
      source: 'diffbot/code-gpt-docs#273',
      sight: refusal('BadRequestError', 400, wrongType),
    },
    engine: () =>
      json(
        400,
        '{"object":"error","message":"not a number","type":"BadRequestError","param":null,"code":400}',
      ),
    sight: refusal('BadRequestError', 400, { ...wrongType, code: null, param: null }),
    engineSees: 1,
    says: 'not a number',
    differs: ENGINE,
  },
  {
    name: 'a parameter of the wrong type, refused by the gateway',
    call: post(body({ stream: 'yes' })),
    openai: {
      answer: says(400, { ...wrongType, param: 'stream' }),
      source: 'diffbot/code-gpt-docs#273',
      sight: refusal('BadRequestError', 400, { ...wrongType, param: 'stream' }),
    },
    engine: hello,
    sight: refusal('BadRequestError', 400, {
      ...wrongType,
      param: 'stream',
      code: 'invalid_request',
    }),
    engineSees: 0,
    differs: 'one code for every body that the gateway cannot use',
  },
  {
    name: 'a body that FastAPI refuses',
    call: post(body({ messages: 'hello' })),
    openai: {
      answer: says(422, fields('Unprocessable')),
      source: SDK_CODE,
      sight: refusal('UnprocessableEntityError', 422, fields('')),
    },
    engine: () => json(422, '{"detail":[{"loc":["body","messages"],"msg":"not a list"}]}'),
    sight: refusal('UnprocessableEntityError', 422, fields('')),
    engineSees: 1,
    says: 'body.messages: not a list',
  },
  {
    name: 'a prompt beyond the context',
    call: call(),
    openai: {
      answer: says(400, context),
      source: 'crewAIInc/crewAI-examples#121',
      sight: refusal('BadRequestError', 400, context),
    },
    engine: () => json(400, JSON.stringify({ error: tooLong })),
    sight: refusal('BadRequestError', 400, context),
    engineSees: 1,
    says: 'maximum context length is 2048',
  },
  {
    name: 'the same, streamed, from SGLang',
    call: stream(),
    openai: {
      answer: says(400, context),
      source: 'crewAIInc/crewAI-examples#121',
      sight: refusal('BadRequestError', 400, context),
    },
    engine: () => {
      const message = "The input (9 tokens) is longer than the model's context length (5 tokens)."
      return json(400, JSON.stringify({ object: 'error', message, code: 400 }))
    },
    sight: refusal('BadRequestError', 400, context),
    engineSees: 1,
    says: 'The input (9 tokens)',
  },
  {
    name: 'a body that is too large',
    call: post(body({ padding: 'x'.repeat(3_000_000) })),
    openai: {
      answer: page(413, '<html><title>413 Request Entity Too Large</title></html>'),
      source: 'openai/codex#2908',
      sight: sight('APIStatusError', { status: 413 }),
    },
    engine: hello,
    sight: refusal('APIStatusError', 413, fields('', { code: 'body_too_large' })),
    engineSees: 0,
    says: 'larger than 1000000 bytes',
    differs: HTML,
  },
]

const paths: readonly Case[] = [
  {
    name: 'a body packed in a way that is not known here',
    call: { ...post(body({})), headers: { 'content-encoding': 'zstd' } },
    openai: {
      answer: says(400, notJson),
      source: null,
      sight: refusal('BadRequestError', 400, notJson),
    },
    engine: hello,
    sight: refusal('APIStatusError', 415, { ...notJson, code: 'unsupported_media_type' }),
    engineSees: 0,
    differs: 'RFC 9110 15.5.16; neither SDK compresses',
  },
  {
    name: 'a method that the path does not have',
    call: call({ do: 'get', path: '/chat/completions' }),
    openai: {
      answer: says(405, notAllowed),
      source: 'quoted by the Java client io.luismesa.openai (2023)',
      sight: refusal('APIStatusError', 405, notAllowed),
    },
    engine: hello,
    sight: refusal('APIStatusError', 405, { ...notAllowed, code: 'method_not_allowed' }),
    engineSees: 0,
    says: 'allowed: POST',
    differs: NO_CODE,
  },
  {
    name: 'a path that does not exist',
    call: { ...post(body({})), path: '/chat/completion' },
    openai: {
      answer: says(404, notFound),
      source: 'chatboxai/chatbox#199',
      sight: refusal('NotFoundError', 404, notFound),
    },
    engine: hello,
    sight: refusal('NotFoundError', 404, { ...notFound, code: 'not_found' }),
    engineSees: 0,
    differs: NO_CODE,
  },
]

export const REFUSALS: readonly Case[] = [...keys, ...bodies, ...paths]
