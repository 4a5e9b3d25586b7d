/** SGLang's descriptions of itself: /server_info, /model_info, /v1/loads and the old names. */
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Service } from './service.ts'
import { sendJson } from './wire.ts'

type Handler = (service: Service, request: IncomingMessage, response: ServerResponse) => void

const modelInfo: Handler = ({ settings }, _request, response) =>
  sendJson(response, {
    status: 200,
    body: {
      model_path: settings.model,
      tokenizer_path: settings.model,
      is_generation: true,
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
          last_gen_throughput: 0,
          memory_usage: { token_capacity: memory.poolTokens },
          effective_max_running_requests_per_dp: settings.runningMax,
          load: runner.engine.running.length + runner.engine.waiting.size,
        },
      ],
      version: settings.version,
    },
  })
}

/** Live, unlike the gauges. */
const loads: Handler = ({ settings, runner, memory, clock }, _request, response) => {
  const { engine } = runner
  const { prefixHits, prefixQueries } = engine.totals
  const load = {
    dp_rank: 0,
    timestamp: clock.epochSeconds(),
    num_running_reqs: engine.running.length,
    num_waiting_reqs: engine.waiting.size,
    num_total_reqs: engine.running.length + engine.waiting.size,
    num_used_tokens: engine.usedTokens,
    num_total_tokens: engine.usedTokens,
    max_total_num_tokens: memory.poolTokens,
    max_running_requests: settings.runningMax,
    token_usage: engine.usedTokens / Math.max(1, memory.poolTokens),
    gen_throughput: 0,
    cache_hit_rate: prefixQueries === 0 ? 0 : prefixHits / prefixQueries,
    utilization: Math.min(1, engine.running.length / settings.runningMax),
    queues: { waiting: engine.waiting.size, grammar: 0, paused: 0, retracted: 0 },
  }
  sendJson(response, { status: 200, body: { version: settings.version, loads: [load] } })
}

export const sglangInfo: Readonly<Record<string, Handler>> = {
  'GET /model_info': modelInfo,
  'GET /get_model_info': modelInfo,
  'GET /server_info': serverInfo,
  'GET /get_server_info': serverInfo,
  'GET /v1/loads': loads,
  'GET /get_load': loads,
}
