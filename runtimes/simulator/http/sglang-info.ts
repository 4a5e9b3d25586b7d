/** SGLang's descriptions of itself: /server_info, /model_info, /v1/loads and the old names. */
import type { IncomingMessage, ServerResponse } from 'node:http'
import { atLeast } from '../flags/versions.ts'
import { isRecord } from '../rehearsal.ts'
import type { Service } from './service.ts'
import { sendJson, sendText } from './wire.ts'

type Handler = (service: Service, request: IncomingMessage, response: ServerResponse) => void

const modelInfo: Handler = ({ settings }, _request, response) =>
  sendJson(response, {
    status: 200,
    body: {
      model_path: settings.model,
      tokenizer_path: settings.model,
      is_generation: settings.pooling === undefined,
      preferred_sampling_params: null,
      weight_version: 'default',
    },
  })

const serverInfo: Handler = (service, _request, response) => {
  const { settings, memory, runner } = service
  sendJson(response, {
    status: 200,
    body: {
      model_path: settings.model,
      served_model_name: settings.servedNames[0],
      host: settings.host,
      port: settings.port,
      tp_size: settings.tensor,
      pp_size: settings.pipeline,
      nnodes: settings.nodes,
      node_rank: settings.nodeRank,
      context_length: settings.contextTokens,
      mem_fraction_static: memory.fraction,
      max_total_num_tokens: memory.poolTokens,
      max_req_input_len: Math.min(settings.contextTokens, memory.poolTokens) - 1,
      status: service.state === 'serving' ? 'ready' : service.state,
      internal_states: [
        {
          last_gen_throughput: service.metrics.throughput?.() ?? 0,
          memory_usage: { token_capacity: memory.poolTokens },
          effective_max_running_requests_per_dp: settings.runningMax,
          load: runner.engine.running.length + runner.engine.waiting.size,
        },
      ],
      version: settings.version,
    },
  })
}

/** Live, unlike the gauges: the snapshot that every scheduler keeps (managers/load_snapshot.py). */
const coreLoad = ({ settings, runner, memory, clock, metrics, busyMs }: Service) => {
  const { engine } = runner
  const { prefixHits, prefixQueries, promptTokens, cachedTokens } = engine.totals
  const waiting = engine.waiting.tokens
  const short = (value: number, digits: number) => Number(value.toFixed(digits))
  return {
    timestamp: clock.epochSeconds(),
    dp_rank: 0,
    num_running_reqs: engine.running.length,
    num_waiting_reqs: engine.waiting.size,
    num_waiting_uncached_tokens: waiting,
    num_used_tokens: engine.usedTokens,
    num_total_tokens: engine.usedTokens + waiting,
    num_active_tokens: engine.usedTokens + waiting,
    num_prealloc_ready_tokens: 0,
    max_total_num_tokens: memory.poolTokens,
    max_running_requests: settings.runningMax,
    token_usage: short(engine.usedTokens / Math.max(1, memory.poolTokens), 4),
    gen_throughput: short(metrics.throughput?.() ?? 0, 2),
    cache_hit_rate: short(prefixQueries === 0 ? 0 : prefixHits / prefixQueries, 4),
    // Nothing sets `max_running_requests_under_SLO` in the versions read.
    utilization: 0,
    total_prefill_uncached_tokens: promptTokens - cachedTokens,
    total_prefill_busy_us: Math.round(busyMs() * 1000),
  }
}

const GIB = 2 ** 30
const gib = (bytes: number): number => Number((bytes / GIB).toFixed(3))

const sectionsOf = ({ memory, runner }: Service) => ({
  memory: {
    weight_gb: gib(memory.weightsBytes),
    kv_cache_gb: gib(memory.poolTokens * memory.kvBytesPerToken),
    graph_gb: 0,
    token_capacity: memory.poolTokens,
  },
  queues: {
    waiting: runner.engine.waiting.size,
    grammar: 0,
    paused: 0,
    retracted: 0,
    prealloc_ready: 0,
  },
})

const SECTIONS = ['core', 'memory', 'spec', 'lora', 'disagg', 'queues', 'all']

const loads: Handler = (service, request, response) => {
  const { settings, clock, rehearsal } = service
  const query = new URLSearchParams((request.url ?? '').split('?')[1] ?? '')
  const asked = query.get('include')?.split(',') ?? ['all']
  const include = asked.map((section) => section.trim())
  const unknown = include.filter((section) => !SECTIONS.includes(section))
  if (unknown.length > 0) {
    const detail =
      `Invalid include sections: {${unknown.map((name) => `'${name}'`).join(', ')}}. Valid ` +
      `options: [${SECTIONS.toSorted()
        .map((name) => `'${name}'`)
        .join(', ')}]`
    return sendJson(response, { status: 400, body: { detail } })
  }
  const shown = Object.entries(sectionsOf(service)).filter(
    ([name]) => include.includes('all') || include.includes(name),
  )
  const load = { ...coreLoad(service), ...Object.fromEntries(shown) }
  if (query.get('format') === 'prometheus') return sendText(response, 200, exposition(load))
  const body = {
    timestamp: new Date(clock.epochSeconds() * 1000).toISOString().replace('Z', '+00:00'),
    version: settings.version,
    accelerator: rehearsal.gpuName,
    num_accelerators: settings.tensor * settings.pipeline,
    loads: [load],
  }
  sendJson(response, { status: 200, body })
}

/** `_format_loads_prometheus`: a gauge a number, sections as prefixes. */
const exposition = (load: Readonly<Record<string, unknown>>): string => {
  const lines: string[] = []
  const gauge = (name: string, value: unknown) => {
    if (typeof value !== 'number') return
    lines.push(`# TYPE sglang_${name} gauge`, `sglang_${name}{dp_rank="0"} ${value}`)
  }
  for (const [key, value] of Object.entries(load)) {
    if (isRecord(value)) {
      for (const [name, inner] of Object.entries(value)) gauge(`${key}_${name}`, inner)
    } else if (key !== 'dp_rank') gauge(key, value)
  }
  return `${lines.join('\n')}\n`
}

/** The older route, in the shape that it had until it went. */
const oldLoad: Handler = (service, _request, response) => {
  const { version } = service.settings
  const core = coreLoad(service)
  const body = {
    dp_rank: 0,
    num_reqs: core.num_running_reqs + core.num_waiting_reqs,
    num_waiting_reqs: core.num_waiting_reqs,
    num_tokens: core.num_total_tokens,
    ...(atLeast(version, '0.5.20')
      ? { num_pending_tokens: core.num_total_tokens - core.num_used_tokens }
      : {}),
    ...(atLeast(version, '0.5.10') ? { ts_tic: service.clock.now() / 1000 } : {}),
  }
  sendJson(response, { status: 200, body: [body] })
}

export const sglangInfo: Readonly<Record<string, Handler>> = {
  'GET /model_info': modelInfo,
  'GET /get_model_info': modelInfo,
  'GET /server_info': serverInfo,
  'GET /get_server_info': serverInfo,
  'GET /v1/loads': loads,
  'GET /get_load': oldLoad,
}
