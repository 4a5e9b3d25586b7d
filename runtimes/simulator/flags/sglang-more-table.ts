/**
 * Flags of `python3 -m sglang.launch_server` (SGLang 0.5.23, `srt/arg_groups/fields/`),
 * second half: names,
 * type, {choices}, =default. Format: flags/argparse.ts.
 */
export const sglangMoreFlags = `
--kv-cache-dtype str {auto|fp8_e5m2|fp8_e4m3|mxfp8|bf16|bfloat16|nvfp4|fp4_mx_block16} =auto
--qsa-indexer-dtype str {auto|bfloat16|fp8_e4m3} =auto; --modelopt-quant str
--modelopt-checkpoint-restore-path str; --modelopt-checkpoint-save-path str
--modelopt-export-path str; --quantize-and-serve flag; --rl-quant-profile str
--startup-weight-load-mode str {serial|overlap} =serial; --custom-weight-loader str*
--weight-loader-disable-mmap flag; --weight-loader-prefetch-checkpoints flag
--weight-loader-prefetch-num-threads int =4; --weight-loader-drop-cache-after-load flag
--remote-instance-weight-loader-seed-instance-ip str
--remote-instance-weight-loader-seed-instance-service-port int
--remote-instance-weight-loader-send-weights-group-ports json
--remote-instance-weight-loader-backend str {transfer_engine|nccl|modelexpress} =nccl
--remote-instance-weight-loader-start-seed-via-transfer-engine flag
--engine-info-bootstrap-port int =6789; --modelexpress-config str; --download-dir str
--model-checksum str; --delete-ckpt-after-loading flag; --decrypted-config-file str
--decrypted-draft-config-file str; --checkpoint-engine-wait-weights-before-ready flag
--weight-cache-mode str {off|daemon|client} =off; --weight-cache-socket str
--weight-cache-timeout int =1800; --log-level str =info; --log-level-http str; --log-requests flag
--log-requests-level int {0|1|2|3} =2; --log-requests-format str {text|json} =text
--log-requests-target str+; --uvicorn-access-log-exclude-prefixes str*; --crash-dump-folder str
--show-time-cost flag; --enable-metrics flag; --smg-http-sidecar-port,--grpc-http-sidecar-port int
--enable-mfu-metrics flag; --enable-metrics-for-all-schedulers flag
--load-snapshot-publish-interval int =15
--tokenizer-metrics-custom-labels-header str =x-custom-labels
--tokenizer-metrics-allowed-custom-labels str+; --extra-metric-labels json
--bucket-time-to-first-token float+; --bucket-inter-token-latency float+
--bucket-e2e-request-latency float+; --prompt-tokens-buckets str+
--generation-tokens-buckets str+; --gc-warning-threshold-secs float =0.0
--decode-log-interval int =40; --enable-request-time-stats-logging flag; --kv-events-config str
--load-publish-endpoint str; --enable-forward-pass-metrics flag
--forward-pass-metrics-worker-id str; --forward-pass-metrics-ipc-name str; --enable-trace flag
--trace-modules str =request; --otlp-traces-endpoint str =localhost:4317; --otlp-service-name str
--export-metrics-to-file flag; --export-metrics-to-file-dir str
--kv-canary str {none|log|raise} =none; --kv-canary-sweep-interval int =0
--debug-tensor-dump-output-folder str; --debug-tensor-dump-layers int+
--debug-tensor-dump-input-file str; --forward-hooks json; --msprobe-dump-config str
--nccl-port int; --dist-timeout int; --dist-init-addr,--nccl-init-addr str
--gated-launch-port int; --nnodes int =1; --node-rank int =0
--tp-size,--tensor-parallel-size int =1; --dcp-size,--decode-context-parallel-size int =1
--pp-size,--pipeline-parallel-size int =1; --pp-max-micro-batch-size int
--pp-async-batch-depth int =0; --dp-size,--data-parallel-size int =1
--attn-dp-size,--attention-data-parallel-size int =1
--load-balance-method str {auto|round_robin|follow_bootstrap_room|total_requests|
  total_tokens} =auto
--attn-cp-size,--attention-context-parallel-size int =1
--moe-dp-size,--moe-data-parallel-size int =1; --dwdp-size int =1
--dcp-comm-backend str {ag_rs|a2a|fi_a2a}; --dcp-replicate-q-proj switch; --enable-prefill-cp flag
--cp-strategy str {zigzag|interleave}; --enable-dsa-cache-layer-split flag
--enable-cp-decode-attn-tp flag; --enable-kv-cache-sharding flag
--enable-dp-attention-local-control-broadcast flag; --enable-dp-lm-head flag
--enable-tp-lm-head-all-to-all switch; --enable-attn-tp-input-scattered flag
--enable-shared-experts-attn-tp flag; --shared-experts-tp-size int
--enable-dense-mlp-attn-tp flag; --enable-layernorm-sp flag
--enable-megamoe-for-layernorm-sp flag; --disable-attn-tp-gather flag; --enable-p2p-check flag
--ep-size,--expert-parallel-size,--ep int =1; --moe-dense-tp-size int
--elastic-ep-join-rank-offset int =0; --elastic-ep-initial-size int
--max-ep-size int; --mem-fraction-static float; --max-running-requests int
--max-queued-requests int; --max-total-tokens int; --chunked-prefill-size int
--prefill-decode-interval int; --prefill-decode-interval-min-bs int =0
--enable-dynamic-chunking flag; --max-prefill-tokens int =16384; --prefill-max-requests int
--schedule-policy str {lpm|random|fcfs|dfs-weight|lof|priority|routing-key|hrrn|
  shortest-prefill-first} =fcfs
--enable-priority-scheduling flag; --disable-priority-preemption flag
--default-priority-value int; --abort-on-priority-when-disabled flag
--schedule-low-priority-values-first flag; --priority-scheduling-preemption-threshold int =10
--retraction-policy str {length|priority} =length; --schedule-conservativeness float =1.0
--page-size int; --c128-page-size int =16; --swa-full-tokens-ratio float; --swa-prefix-tails int
--disable-hybrid-swa-memory flag; --prefill-only-disable-kv-cache flag
--disable-chunked-prefix-cache flag; --disable-overlap-schedule flag
--num-continuous-decode-steps int =1; --scheduler-recv-interval int =1; --enable-mixed-chunk flag
--max-mamba-cache-size int; --mamba-full-memory-ratio float; --enable-prefill-delayer flag
--prefill-delayer-max-delay-passes int =30; --prefill-delayer-token-usage-low-watermark float
--prefill-delayer-forward-passes-buckets float+; --prefill-delayer-wait-seconds-buckets float+
--prefill-delayer-queue-min-ratio float; --prefill-delayer-max-delay-ms float
--min-free-slots-delay int; --enable-response-store flag; --tokenizer-path str
--tokenizer-mode str {auto|slow} =auto
--tokenizer-backend str {huggingface|fastokens} =huggingface; --tokenizer-worker-num int =1
--detokenizer-worker-num int =1; --skip-tokenizer-init flag; --host str =127.0.0.1
--port int =30000; --fastapi-root-path str; --enable-http-worker-reuseport flag
--smg-grpc-mode flag; --grpc-mode flag; --grpc-port int; --grpc-response-timeout-secs int =300
--sidecar str; --sidecar-args json; --skip-server-warmup flag; --warmups str; --enable-http2 flag
--http2-max-concurrent-streams int =200; --http2-initial-connection-window-size int =1048576
--ssl-keyfile str; --ssl-certfile str; --ssl-ca-certs str; --ssl-keyfile-password str
--enable-ssl-refresh flag; --api-key str; --admin-api-key str; --served-model-name str
--weight-version str =default; --chat-template str; --trust-request-chat-template flag
--hf-chat-template-name str; --completion-template str; --file-storage-path str
--enable-cache-report flag; --return-input-ids flag; --return-output-ids flag
--default-chat-template-kwargs json; --strip-thinking-cache flag; --enable-strict-thinking flag
--tool-server str; --sampling-defaults str {openai|model} =model; --asr-max-buffer-seconds int =60
--asr-max-concurrent-sessions int =32; --preferred-sampling-params json
--allow-auto-truncate flag; --stream-interval int =1; --batch-notify-size int =16
--stream-response-default-include-usage flag; --incremental-streaming-output flag
--enable-streaming-session flag; --constrained-json-whitespace-pattern str
--constrained-json-disable-any-whitespace flag; --constrained-json-max-whitespace-cnt int
--enable-dynamic-batch-tokenizer flag; --dynamic-batch-tokenizer-batch-size int =32
--dynamic-batch-tokenizer-batch-timeout float =0.002; --enable-tokenizer-batch-encode flag
--disable-tokenizer-batch-decode flag; --speculative-algorithm str; --uno-lora-path str
--speculative-draft-model-path,--speculative-draft-model str
--speculative-draft-model-revision str
--speculative-draft-load-format str {auto|pt|safetensors|instanttensor|npcache|dummy|
  sharded_state|presharded|gguf|expert_pack|bitsandbytes|mistral|layered|flash_rl|remote|
  remote_instance|fastsafetensors|private|runai_streamer}
--speculative-num-steps int; --speculative-eagle-topk int; --speculative-num-draft-tokens int
--speculative-dflash-block-size int; --speculative-domino-candidate-pool-size int =2048
--speculative-dspark-block-size int; --speculative-dspark-sps-table-path str
--speculative-dspark-confidence-sts-path str
--speculative-dspark-align-verify-tokens-to-graph-tier flag
--speculative-accept-threshold-single float =1.0; --speculative-accept-threshold-acc float =1.0
--speculative-use-rejection-sampling flag; --speculative-use-block-verification flag
--speculative-token-map str; --speculative-attention-mode str {prefill|decode} =prefill
--speculative-draft-attention-backend str
--speculative-dsa-topk-backend str {sgl-kernel|torch|flashinfer} =sgl-kernel
--speculative-draft-kv-cache-dtype str {auto|fp8_e5m2|fp8_e4m3|bf16|bfloat16}
--speculative-draft-window-size int; --speculative-draft-sink-size int
--speculative-moe-runner-backend str {auto|deep_gemm|triton|triton_kernel|flashinfer_trtllm|
  experimental_sgl_trtllm|flashinfer_trtllm_routed|flashinfer_cutlass|flashinfer_mxfp4|
  flashinfer_cutedsl|flashinfer_megamoe|cutlass|aiter|marlin|humming|
  experimental_sgl_marlin|lora_cutedsl|lora_triton|lora_marlin|hpc_ops|megamoe|intel_xpu}
--speculative-moe-a2a-backend str {none|deepep|mooncake|nixl|mori|ascend_fuseep|flashinfer|
  megamoe|deepep_v2|pplx|ascend_tp}
--speculative-enable-w4a4-mxfp4-megamoe switch
--speculative-draft-model-quantization str {awq|fp8|mxfp8|gptq|gptq_marlin|awq_marlin|
  bitsandbytes|gguf|modelopt|modelopt_fp8|modelopt_fp4|nvfp4_online|modelopt_mixed|
  petit_nvfp4|w8a8_int8|w8a8_fp8|moe_wna16|w4afp8|mxfp4|auto-round|auto-round-int8|
  compressed-tensors|modelslim|mxfp_w4a8|quark|quark_int4fp8_moe|quark_mxfp4|mlx_q4|mlx_q8|
  unquant|humming}
--enable-multi-layer-eagle flag; --speculative-adaptive flag; --speculative-adaptive-config str
--spec-trace-dir str; --speculative-ngram-min-bfs-breadth int =1
--speculative-ngram-max-bfs-breadth int =10; --speculative-ngram-match-type str {BFS|PROB} =BFS
--speculative-ngram-max-trie-depth int =18; --speculative-ngram-capacity int =10000000
--speculative-ngram-external-corpus-path str; --speculative-ngram-external-sam-budget int =0
--speculative-ngram-external-corpus-max-tokens int =10000000
--sampling-backend str {flashinfer|pytorch|ascend}
--reasoning-parser str {auto|apertus2509|beam|deepseek-r1|deepseek-v3|deepseek-v4|
  deepseek-v41|dots|glm45|ling3|hunyuan|gpt-oss|k2_horizon|kimi|kimi_k2|kimi_k3|muse|qwen3|
  qwen3-thinking|minimax|minimax-append-think|minimax-m3|nanbeige|step3|step3p5|mistral|
  nemotron_3|granite_thinking_parser|interns1|gemma4|inkling|response_template}
--tool-call-parser str {auto|apertus2509|beam|cohere_command4|deepseekv3|deepseekv31|
  deepseekv32|deepseekv4|deepseekv41|dots|glm|glm45|glm47|gpt-oss|k2_horizon|kimi_k2|
  kimi_k3|lfm2|ling3|llama3|mimo|minicpm5|mistral|muse|poolside_v1|pythonic|qwen|qwen25|
  qwen3_coder|spark25|step3|step3p5|minimax-m2|minimax-m3|nanbeige|trinity|interns1|hermes|
  hunyuan|gigachat3|gemma4|inkling|response_template}
--kv-canary-real-data str {none|partial|all} =none; --config str; --disable-cuda-graph flag
--enable-dp-attention flag; --enable-flashinfer-allreduce-fusion flag
--monokernel-backend str {amd}; --cuda-graph-max-bs int; --cuda-graph-bs int+
`
