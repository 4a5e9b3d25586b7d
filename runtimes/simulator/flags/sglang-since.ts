/**
 * Since which played version `sglang.launch_server` takes a flag; what is not listed is as old
 * as 0.4.4. Read in srt/server_args.py and srt/arg_groups of the wheels sglang.
 */
export const sglangSince = `
0.4.6: completion-template deepep-mode disable-chunked-prefix-cache disable-fast-image-processor
  disaggregation-bootstrap-port disaggregation-ib-device disaggregation-mode
  disaggregation-transfer-backend enable-multimodal enable-tokenizer-batch-encode hicache-ratio
  hicache-size hicache-write-policy moe-dense-tp-size
0.5.3: bucket-e2e-request-latency bucket-inter-token-latency bucket-time-to-first-token config
  crash-dump-folder custom-weight-loader decode-attention-backend deepep-config
  disable-flashinfer-cutlass-moe-fp4-allgather disable-hybrid-swa-memory
  disable-shared-experts-fusion disaggregation-decode-enable-offload-kvcache
  disaggregation-decode-polling-interval dynamic-batch-tokenizer-batch-size
  dynamic-batch-tokenizer-batch-timeout enable-cudagraph-gc enable-deterministic-inference
  enable-dp-lm-head enable-dynamic-batch-tokenizer enable-eplb enable-flashinfer-allreduce-fusion
  enable-fp32-lm-head enable-lmcache enable-lora enable-metrics-for-all-schedulers enable-mscclpp
  enable-pdmux enable-priority-scheduling enable-profile-cuda-graph
  enable-request-time-stats-logging enable-return-hidden-states enable-single-batch-overlap
  enable-symm-mem enable-torch-symm-mem enable-trace enable-two-batch-overlap
  enable-weights-cpu-backup ep ep-dispatch-algorithm ep-num-redundant-experts eplb-algorithm
  eplb-min-rebalancing-utilization-threshold eplb-rebalance-layers-per-chunk
  eplb-rebalance-num-iterations expert-distribution-recorder-buffer-size
  expert-distribution-recorder-mode flashinfer-mxfp4-moe-precision gc-warning-threshold-secs
  generation-tokens-buckets hicache-io-backend hicache-mem-layout hicache-storage-backend
  hicache-storage-backend-extra-config hicache-storage-prefetch-policy init-expert-location
  kv-events-config lora-target-modules mamba-ssm-dtype max-loaded-loras max-lora-chunk-size
  max-lora-rank max-mamba-cache-size max-queued-requests mm-attention-backend model model-impl
  model-loader-extra-config moe-a2a-backend moe-runner-backend num-reserved-decode-tokens
  numa-node offload-group-size offload-mode offload-num-in-group offload-prefetch-step
  pipeline-parallel-size pp-size preferred-sampling-params prefill-attention-backend
  priority-scheduling-preemption-threshold prompt-tokens-buckets radix-eviction-policy
  remote-instance-weight-loader-seed-instance-ip
  remote-instance-weight-loader-seed-instance-service-port
  remote-instance-weight-loader-send-weights-group-ports schedule-low-priority-values-first
  scheduler-recv-interval skip-server-warmup sleep-on-idle sm-group-num speculative-attention-mode
  speculative-draft-model speculative-draft-model-revision speculative-ngram-capacity
  speculative-ngram-match-type speculative-ngram-max-bfs-breadth speculative-ngram-min-bfs-breadth
  swa-full-tokens-ratio tbo-token-distribution-threshold tokenizer-metrics-allowed-custom-labels
  tokenizer-metrics-custom-labels-header tokenizer-worker-num tool-server
  triton-attention-split-tile-size weight-loader-disable-mmap weight-version
0.5.6: abort-on-priority-when-disabled checkpoint-engine-wait-weights-before-ready
  constrained-json-disable-any-whitespace debug-tensor-dump-layers decrypted-config-file
  decrypted-draft-config-file disable-tokenizer-batch-decode dllm-algorithm elastic-ep-backend
  enable-attn-tp-input-scattered enable-broadcast-mm-inputs-process
  enable-draft-weights-cpu-backup enable-layerwise-nvtx-marker enable-torch-compile-debug-mode
  export-metrics-to-file export-metrics-to-file-dir fastapi-root-path forward-hooks grpc-mode
  kt-cpuinfer kt-max-deferred-experts-per-token kt-method kt-num-gpu-experts kt-threadpool-count
  kt-weight-path lora-eviction-policy mamba-full-memory-ratio mm-enable-dp-encoder
  mm-process-config modelopt-checkpoint-restore-path modelopt-checkpoint-save-path
  modelopt-export-path modelopt-quant mooncake-ib-device otlp-traces-endpoint pdmux-config-path
  pp-max-micro-batch-size quantize-and-serve rl-on-policy-target sampling-defaults
  speculative-draft-load-format speculative-moe-runner-backend
0.5.10: admin-api-key attention-context-parallel-size attn-cp-size default-priority-value
  disable-flashinfer-autotune disable-priority-preemption dllm-algorithm-config
  enable-adaptive-dispatch-to-encoder enable-aiter-allreduce-fusion enable-dynamic-chunking
  enable-elastic-expert-backup enable-fused-moe-sum-all-reduce enable-fused-qk-norm-rope
  enable-hisparse enable-lora-overlap-loading enable-mfu-metrics enable-mm-global-cache
  enable-multi-layer-eagle enable-precise-embedding-interpolation enable-prefill-delayer
  enable-prefix-mm-cache enable-return-routed-experts enable-ssl-refresh enable-streaming-session
  encoder-only encoder-transfer-backend encoder-urls enforce-disable-flashinfer-allreduce-fusion
  engine-info-bootstrap-port experts-shared-outer-loras extra-metric-labels fp4-gemm-backend
  fp8-gemm-backend gc-threshold hf-chat-template-name hisparse-config incremental-streaming-output
  language-only limit-mm-data-per-request linear-attn-backend linear-attn-decode-backend
  linear-attn-prefill-backend log-requests-format log-requests-target mamba-backend
  mamba-track-interval model-checksum modelexpress-config moe-data-parallel-size moe-dp-size
  pp-async-batch-depth pre-warm-nccl prefill-delayer-forward-passes-buckets
  prefill-delayer-max-delay-passes prefill-delayer-token-usage-low-watermark
  prefill-delayer-wait-seconds-buckets prefill-max-requests remote-instance-weight-loader-backend
  remote-instance-weight-loader-start-seed-via-transfer-engine rl-quant-profile
  soft-watchdog-timeout speculative-draft-attention-backend speculative-draft-model-quantization
  speculative-moe-a2a-backend speculative-ngram-max-trie-depth ssl-ca-certs ssl-certfile
  ssl-keyfile ssl-keyfile-password stream-response-default-include-usage use-ray
  uvicorn-access-log-exclude-prefixes
0.5.15: asr-max-buffer-seconds asr-max-concurrent-sessions batch-notify-size bf16-gemm-backend
  cp-strategy cuda-graph-backend-decode cuda-graph-backend-prefill cuda-graph-bs-decode
  cuda-graph-bs-prefill cuda-graph-config cuda-graph-max-bs-decode cuda-graph-max-bs-prefill
  dcp-size debug-cuda-graph decode-context-parallel-size decoupled-spec-bind-endpoint
  decoupled-spec-connect-endpoints decoupled-spec-rank decoupled-spec-role
  deepep-dispatcher-output-dtype detokenizer-worker-num disable-attn-tp-gather
  disable-decode-cuda-graph disable-prefill-cuda-graph disaggregation-decode-enable-radix-cache
  disaggregation-decode-extra-slots dsa-decode-backend dsa-paged-mqa-logits-backend
  dsa-prefill-backend dsa-topk-backend enable-deepseek-v4-fp4-indexer
  enable-dp-attention-local-control-broadcast enable-forward-pass-metrics enable-http2
  enable-int8-mamba-checkpoint enable-linear-replayssm enable-mamba-cache-stochastic-rounding
  enable-mis enable-page-major-kv-layout enable-prefill-cp enable-quant-communications
  enable-return-indexer-topk enable-session-radix-cache enable-strict-thinking enable-tf32-matmul
  enable-unified-memory encoder-bootstrap-port encoder-register-urls enforce-shared-experts-fusion
  flashinfer-allreduce-fusion-backend forward-pass-metrics-ipc-name forward-pass-metrics-worker-id
  grpc-http-sidecar-port hierarchical-sparse-attention-extra-config int8-mamba-ckpt-size kv-canary
  kv-canary-real-data kv-canary-sweep-interval linear-replayssm-cache-len lmcache-config-file
  load-snapshot-publish-interval lora-drain-wait-threshold lora-strict-loading
  lora-use-virtual-experts mamba-cache-philox-rounds mamba-radix-cache-strategy
  min-free-slots-delay model-config-parser msprobe-dump-config prefill-delayer-max-delay-ms
  prefill-delayer-queue-min-ratio prefill-only-disable-kv-cache radix-cache-backend spec-trace-dir
  speculative-adaptive speculative-adaptive-config speculative-dflash-block-size
  speculative-draft-window-size speculative-ngram-external-corpus-max-tokens
  speculative-ngram-external-corpus-path speculative-ngram-external-sam-budget
  speculative-use-rejection-sampling strip-thinking-cache tokenizer-backend trace-modules
  weight-loader-drop-cache-after-load weight-loader-prefetch-checkpoints
  weight-loader-prefetch-num-threads
0.5.20: allowed-media-domains c128-page-size dcp-comm-backend dcp-replicate-q-proj deepep-v2-mode
  default-chat-template-kwargs disaggregation-decode-retraction-backup dllm-fdfo dsv4-attn-backend
  dsv4-prefill-backend dwdp-size elastic-ep-initial-size elastic-ep-join-mode
  elastic-ep-join-rank-offset elastic-ep-scale-timeout enable-cp-decode-attn-tp
  enable-dense-mlp-attn-tp enable-dsa-cache-layer-split enable-flexkv enable-layernorm-sp
  enable-lean-attention enable-linear-replayssm-spec enable-response-store enable-scattered-sconv
  enable-shared-experts-attn-tp enable-tp-lm-head-all-to-all enable-unified-cache-external-linker
  enable-w4a4-mxfp4-megamoe enable-waterfill expert-balancedness-report-mode
  flashinfer-a2a-dispatch-type flashinfer-autotune-skip-ops flexkv-config-file fuseep-mode
  gated-launch-port grpc-port hicache-host-memory-mode hicache-storage-prefetch-retry-max-attempts
  hicache-storage-prefetch-retry-poll-interval http2-initial-connection-window-size
  http2-max-concurrent-streams image-processor-backend language-model-only
  linear-attn-verify-backend load-publish-endpoint mamba-max-states-per-path max-ep-size
  media-url-max-file-size-mb mlx-enable-sampling mm-feature-transport mm-global-cache-backend
  mm-io-worker-num mm-preprocess-cache-size-mb mm-processor-worker-num optimistic-prefill-attempts
  ple-offload-backend ple-offload-dir ple-offload-embedding prefill-decode-interval
  radix-eviction-policy-config retraction-policy return-hidden-states-mode return-input-ids
  return-output-ids sampling-mask-max-tokens sidecar sidecar-args smg-grpc-mode
  smg-http-sidecar-port speculative-domino-candidate-pool-size speculative-draft-kv-cache-dtype
  speculative-dsa-topk-backend speculative-dspark-align-verify-tokens-to-graph-tier
  speculative-dspark-block-size speculative-dspark-confidence-sts-path
  speculative-dspark-sps-table-path startup-weight-load-mode trust-mm-content-hashes
  unified-cache-external-linker-backend uno-lora-path weight-cache-mode weight-cache-socket
  weight-cache-timeout
0.5.23: attention-data-parallel-size attn-dp-size boundary-reduction
  constrained-json-max-whitespace-cnt context-bucket cuda-graph-max-seq-len-prefill
  cuda-graph-prefill-max-context disable-aiter-allreduce-fusion-in-decode
  disable-aiter-allreduce-fusion-in-prefill disaggregation-decode-allocation-policy
  disaggregation-decode-host-receive-threshold disaggregation-enable-kv-checksum dsa-triton-union
  enable-amd-monokernel enable-decoder-swa-bounded-replay enable-dsa-fused-indexer
  enable-encoder-swa-bounded-replay enable-hicache enable-http-worker-reuseport
  enable-kv-cache-sharding enable-linker-mla-dedup enable-megamoe-for-layernorm-sp
  enable-nvidia-megakernel enable-paged-experts enable-pd-role-switch
  enable-return-aux-hidden-states enable-watermark grpc-response-timeout-secs
  hicache-host-memory-fraction monokernel-backend otlp-service-name paged-experts-num-resident
  prefill-decode-interval-min-bs prefill-kv-cache-dequant-dtype qsa-indexer-dtype
  return-aux-hidden-state-layer-ids shared-experts-tp-size speculative-draft-sink-size
  speculative-enable-w4a4-mxfp4-megamoe speculative-use-block-verification swa-prefix-tails
  trust-request-chat-template unified-cache-external-linker-config watermark-config
`
