/**
 * Which metric families each played version exports: vllm/v1/metrics/loggers.py and
 * srt/metrics/collector.py (later srt/observability/metrics_collector.py) of each wheel.
 */
import { atLeast, sinceTable } from '../flags/versions.ts'
import type { Settings } from '../settings.ts'

const VLLM_SINCE = sinceTable(`
0.9.2: kv_cache_usage_perc prefix_cache_queries_total prefix_cache_hits_total
0.10.2: inter_token_latency_seconds
0.11.2: engine_sleep_state external_prefix_cache_queries_total external_prefix_cache_hits_total
  mm_cache_queries_total mm_cache_hits_total request_time_per_output_token_seconds
0.14.1: request_prefill_kv_computed_tokens
0.19.1: estimated_flops_per_gpu_total estimated_read_bytes_per_gpu_total
  estimated_write_bytes_per_gpu_total prompt_tokens_by_source_total prompt_tokens_cached_total
0.23.0: num_requests_waiting_by_reason
0.30.0: request_num_preemptions
0.32.0: admission_rejections_total prompt_tokens_cached_by_source_total
`)

/** From `hidden` on only with --show-hidden-metrics-for-version, from `gone` on never. */
const VLLM_LEAVING: Readonly<Record<string, { readonly hidden: string; readonly gone: string }>> = {
  gpu_cache_usage_perc: { hidden: '0.11', gone: '0.12' },
  gpu_prefix_cache_queries_total: { hidden: '0.11', gone: '0.12' },
  gpu_prefix_cache_hits_total: { hidden: '0.11', gone: '0.12' },
  time_per_output_token_seconds: { hidden: '0.12', gone: '0.15' },
}

const SGLANG_SINCE = sinceTable(`
0.4.6: avg_request_queue_latency
0.5.3: swa_token_usage num_grammar_queue_reqs num_paused_reqs num_retracted_reqs utilization
  num_aborted_requests_total queue_time_seconds per_stage_req_latency_seconds
  prompt_tokens_histogram generation_tokens_histogram engine_startup_time num_so_requests_total
  num_prefill_inflight_queue_reqs num_decode_prealloc_queue_reqs num_decode_transfer_queue_reqs
0.5.6: max_total_num_tokens new_token_ratio is_cuda_graph mamba_usage spec_accept_rate
  pending_prealloc_token_usage num_retractions
0.5.10: realtime_tokens_total num_retracted_requests_total full_token_usage decode_sum_seq_lens
  cuda_graph_passes_total http_requests_total http_responses_total
0.5.15: context_len page_size num_pages kv_available_tokens kv_evictable_tokens kv_used_tokens
  uncached_prompt_tokens_histogram num_prefill_bootstrap_queue_reqs
0.5.20: weight_memory_usage_gb kv_cache_memory_usage_gb startup_time_seconds
0.5.23: request_time_per_output_token_seconds
`)

const SGLANG_GONE: Readonly<Record<string, string>> = {
  time_per_output_token_seconds: '0.4.6',
  avg_request_queue_latency: '0.5.3',
  num_retractions: '0.5.15',
  engine_startup_time: '0.5.20',
}

/** Whether this engine exports a family; names as on the wire, with their prefix. */
export const exportsFamily =
  ({ engine, version, hiddenMetrics }: Pick<Settings, 'engine' | 'version' | 'hiddenMetrics'>) =>
  (wireName: string): boolean => {
    const name = wireName.slice(wireName.indexOf(':') + 1)
    if (!wireName.includes(':')) return true
    const from = (engine === 'vllm' ? VLLM_SINCE : SGLANG_SINCE).get(name)
    if (from !== undefined && !atLeast(version, from)) return false
    if (engine === 'sglang') {
      const gone = SGLANG_GONE[name]
      return gone === undefined || !atLeast(version, gone)
    }
    const leaving = VLLM_LEAVING[name]
    if (leaving === undefined || !atLeast(version, leaving.hidden)) return true
    return hiddenMetrics && !atLeast(version, leaving.gone)
  }
