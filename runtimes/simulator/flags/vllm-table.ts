/**
 * Flags of `vllm serve` (vLLM 0.32, `vllm/engine/arg_utils.py`, `entrypoints/launchers/cli_args.py`
 * and the config classes behind them): names, type, {choices}, =default. Format: flags/argparse.ts.
 */
export const vllmFlags = `
--model str =Qwen/Qwen3-0.6B; --runner str {auto|draft|generate|pooling} =auto
--convert str {auto|classify|embed|none} =auto; --tokenizer str; --tokenizer-mode str =auto
--trust-remote-code switch; --dtype str {auto|bfloat16|float|float16|float32|half} =auto
--seed int =0; --hf-config-path str; --allowed-local-media-path str; --allowed-media-domains str+
--revision str; --code-revision str; --tokenizer-revision str; --max-model-len size-or-auto
--quantization,-q str; --quantization-config json; --allow-deprecated-quantization switch
--enforce-eager switch; --enable-return-routed-experts switch; --return-sampling-mask switch
--max-logprobs int =20
--logprobs-mode str {processed_logits|processed_logprobs|raw_logits|raw_logprobs} =raw_logprobs
--use-fp64-gumbel switch; --enable-trace-replay switch; --disable-sliding-window switch
--disable-cascade-attn switch; --skip-tokenizer-init switch; --enable-prompt-embeds switch
--served-model-name str+; --config-format str =auto; --hf-token maybe; --hf-overrides str
--model-class-overrides json; --pooler-config json; --generation-config str =auto
--override-generation-config json; --enable-sleep-mode switch
--sleep-mode-offload-cudagraph switch; --sleep-preserve-parameter-names str+
--enable-cumem-allocator switch; --enable-nccl-comm-suspend switch; --model-impl str =auto
--logits-processors str+; --io-processor-plugin str; --renderer-num-workers int =1
--load-format str =auto; --download-dir str
--safetensors-load-strategy str {eager|lazy|prefetch|torchao}
--safetensors-prefetch-num-threads int =8; --safetensors-prefetch-block-size size =16777216
--model-loader-extra-config str; --ignore-patterns str+; --use-tqdm-on-load switch =true
--pt-load-map-location str =cpu; --attention-backend str; --mamba-backend str
--mamba-ssu-algorithm str {auto|horizontal|simple|vertical}
--enable-mamba-cache-stochastic-rounding switch; --mamba-cache-philox-rounds int =0
--reasoning-parser str; --reasoning-parser-plugin str; --distributed-executor-backend str
--pipeline-parallel-size,-pp int =1; --master-addr str =127.0.0.1; --master-port int =29501
--nnodes,-n int =1; --node-rank,-r int =0; --distributed-timeout-seconds int
--cpu-distributed-timeout-seconds int; --numa-bind switch; --numa-bind-nodes int+
--numa-bind-cpus str+; --device-ids str; --tensor-parallel-size,-tp int =1
--decode-context-parallel-size,-dcp int =1; --dcp-comm-backend str {a2a|ag_rs}
--dcp-q-replicate switch; --dcp-kv-cache-interleave-size int =1; --cp-kv-cache-interleave-size int
--prefill-context-parallel-size,-pcp int =1; --data-parallel-size,-dp int =1
--data-parallel-rank,-dpn int; --data-parallel-start-rank,-dpr int
--data-parallel-size-local,-dpl int; --data-parallel-address,-dpa str
--data-parallel-rpc-port,-dpp int; --data-parallel-backend,-dpb str =mp
--data-parallel-hybrid-lb,-dph switch; --data-parallel-external-lb,-dpe switch
--data-parallel-multi-port-external-lb,-dpm flag; --enable-hc-sp switch
--enable-expert-parallel,-ep switch; --enable-batch-sharded-sampling switch
--enable-ep-weight-filter switch
--all2all-backend str {allgather_reducescatter|deepep_high_throughput|deepep_low_latency|
  deepep_v2|flashinfer_all2allv|flashinfer_nvlink_one_sided|flashinfer_nvlink_two_sided|
  moonep|mori_high_throughput|mori_low_latency|naive|nixl_ep|pplx} =allgather_reducescatter
--enable-dbo switch; --enable-shm-tensor-arena switch; --ubatch-size int =0
--enable-elastic-ep switch; --elastic-ep-max-dp-size int; --dbo-decode-token-threshold int =32
--dp-sync-interval int =16; --dbo-prefill-token-threshold int =512
--disable-nccl-for-dp-synchronization switch; --enable-eplb switch; --eplb-config json
--expert-placement-strategy str {linear|round_robin} =linear; --max-parallel-loading-workers int
--ray-workers-use-nsight switch; --disable-custom-all-reduce switch; --worker-cls str =auto
--worker-extension-cls str; --enable-fault-tolerance switch; --fault-tolerance-config json
--block-size int
--gpu-memory-utilization,--device-memory-utilization float =0.92
--kv-cache-memory-bytes size
--kv-cache-dtype str {auto|bfloat16|float16|fp8|fp8_ds_mla|fp8_e4m3|fp8_e5m2|fp8_inc|
  fp8_per_token_head|int4_per_token_head|int8_per_token_head|nvfp4|nvfp4_4over6|
  nvfp4_ds_mla|turboquant_3bit_nc|turboquant_4bit_nc|turboquant_k3v4_nc|turboquant_k8v4|
  ultraquant_4bit} =auto
--num-gpu-blocks-override int; --enable-prefix-caching switch
--prefix-caching-hash-algo str {sha256|sha256_cbor|xxhash|xxhash_cbor} =sha256
--prefix-cache-retention-interval int =0; --kv-cache-dtype-skip-layers str+
--kv-sharing-fast-prefill switch; --swa-bounded-replay switch =true
--mamba-cache-dtype str {auto|bfloat16|float16|float32} =auto
--mamba-ssm-cache-dtype str {auto|bfloat16|float16|float32} =auto
--mamba-block-size int; --prefix-match-unit int; --mamba-cache-mode str {align|none} =none
--enable-mamba-shared-prefix-checkpoint switch; --replayssm-buffer-len int =16
--use-replayssm switch; --kv-offloading-size float
--kv-offloading-backend str {lmcache|native} =native
--offload-backend str {auto|prefetch|uva} =auto; --cpu-offload-gb float =0
--cpu-offload-params str+; --offload-group-size int =0; --offload-num-in-group int =1
--offload-prefetch-step int =1; --offload-params str+; --language-model-only switch
--limit-mm-per-prompt str; --enable-mm-embeds switch; --media-io-kwargs json
--mm-processor-kwargs json; --mm-processor-cache-gb float =4
--mm-processor-cache-type str {lru|shm} =lru
--mm-hasher-algorithm str {blake3|sha256|sha512} =blake3
--mm-shm-cache-max-object-size-mb int =128; --mm-encoder-only switch
--mm-encoder-tp-mode str {data|weights} =weights; --mm-encoder-attn-backend str
--mm-encoder-attn-dtype str {fp8}; --mm-encoder-fp8-scale-path str
--mm-encoder-fp8-scale-save-path str; --mm-encoder-fp8-scale-save-margin float =1.5
--interleave-mm-strings switch; --skip-mm-profiling switch; --video-pruning-rate float
--video-pruning-method str {evs|vidcom2} =evs
--mm-tensor-ipc str {direct_rpc|torch_shm} =direct_rpc; --mm-processor-device str {auto|cpu} =auto
--mm-ipc-gpu-memory-gb float =0; --mm-device-do-normalize switch; --enable-lora switch
--max-loras int =1; --max-lora-rank int {1|8|16|32|64|128|256|320|512} =16
--lora-dtype str {auto|bfloat16|float16} =auto; --enable-tower-connector-lora switch
--max-cpu-loras int; --fully-sharded-loras switch; --lora-target-modules str+
--default-mm-loras json; --specialize-active-lora switch; --enable-mixed-moe-lora-format switch
--enable-moe-shared-loras switch; --max-lora-cls-labels int; --logging-config str
--log-level str {CRITICAL|ERROR|WARNING|INFO|DEBUG|NOTSET}; --log-config-file str
--show-hidden-metrics-for-version str; --otlp-traces-endpoint str
--collect-detailed-traces str+ {model|worker|all}
--per-request-spec-decode-metrics str {detailed|none|summary} =none
--kv-cache-metrics switch; --kv-cache-metrics-sample float =0.01; --custom-histogram-buckets json
--cudagraph-metrics switch; --enable-layerwise-nvtx-tracing switch; --enable-mfu-metrics switch
--enable-logging-iteration-details switch; --jit-monitor-mode str {error|warn} =warn
--jit-monitor-verbose switch; --max-num-batched-tokens size; --max-num-scheduled-tokens size
--max-num-seqs int; --max-num-active-seqs int; --max-num-queued-reqs int
--max-num-queued-tokens size; --long-prefill-token-threshold int =0
--long-prefill-token-threshold-adaptive switch; --scheduling-policy str {fcfs|priority} =fcfs
--enable-chunked-prefill switch; --disable-chunked-mm-input switch; --scheduler-cls str
--scheduler-reserve-full-isl switch =true; --watermark float =0.0
--prefill-schedule-interval int =1; --disable-hybrid-kv-cache-manager switch
--async-scheduling switch; --stream-interval int =1; --cudagraph-capture-sizes int+
--max-cudagraph-capture-size int; --ir-op-priority json; --enable-flashinfer-autotune switch
--moe-backend str {aiter|aiter_mega_moe|aiter_triton_mxfp4_bf16|auto|b12x|batched_triton|
  cutlass|deep_gemm|deep_gemm_mega_moe|emulation|flashinfer_b12x|flashinfer_cutedsl|
  flashinfer_cutlass|flashinfer_moe_ep_cutedsl|flashinfer_moe_ep_mega_deep_gemm|
  flashinfer_trtllm|flydsl|hpc|humming|marlin|rdna3|triton|triton_unfused}
--linear-backend str {aiter|auto|b12x|conch|cutlass|deep_gemm|emulation|exllama|fbgemm|
  flashinfer_b12x|flashinfer_cudnn|flashinfer_cutedsl|flashinfer_cutlass|flashinfer_trtllm|
  humming|machete|marlin|torch|triton|xpu|xpu_woq}
--sparse-indexer-topk-backend str {aiter|auto|cooperative|deep_select|flashinfer|per_row|
  persistent|torch}
--speculative-config,-sc json
--spec-method str {bailing_hybrid_mtp|bailing_hybrid_v3_mtp|custom_class|deepseek_mtp|
  dflash|dots3_note_mtp|draft_model|dspark|eagle|eagle3|ernie_mtp|exaone4_5_mtp|
  exaone_moe_mtp|extract_hidden_states|gemma4_mtp|glm4_moe_lite_mtp|glm4_moe_mtp|
  glm5_next_mtp|glm_ocr_mtp|hy_v3_mtp|hy_v4_mtp|inkling_mtp|kimi_k3_mtp|longcat_flash_mtp|
  medusa|mimo_mtp|mimo_v2_mtp|minimax_m3_mtp|mlp_speculator|mtp|nemotron_h_mtp|ngram|
  ngram_gpu|pangu_ultra_moe_mtp|qwen3_5_mtp|qwen3_next_mtp|qwen4_exp_mtp|step3p5_mtp|suffix}
--spec-model str; --spec-tokens int; --watermark-config json; --diffusion-config,-dc json
--kv-transfer-config json; --kv-events-config json; --ec-transfer-config json
--ec-manager-config json; --compilation-config,-cc json; --attention-config,-ac json
--engram-config json; --reasoning-config json; --kernel-config json; --additional-config str
--structured-outputs-config json; --aux-output-config json; --profiler-config json
--optimization-level str
--performance-mode str {balanced|interactivity|throughput} =balanced
--weight-transfer-config json; --disable-log-stats flag; --aggregate-engine-logging flag
--fail-on-environ-validation switch; --shutdown-timeout int =0
--gdn-prefill-backend str {flashinfer|triton|cutedsl|aiter_flydsl}
--kda-prefill-backend str {auto|triton|flashkda|flashinfer|fused}
--kda-decode-backend str {auto|native|flashinfer|triton}; --enable-log-requests switch
--lora-modules str+; --chat-template str
--chat-template-content-format str {auto|openai|string} =auto
--trust-request-chat-template switch; --trust-request-mm-kwargs switch
--default-chat-template-kwargs json; --response-role str =assistant
--return-tokens-as-token-ids switch; --enable-auto-tool-choice switch
--exclude-tools-when-tool-choice-none switch; --tool-call-parser str; --tool-parser-plugin str
--tool-strict-level str {auto|function|parameter} =auto; --tool-server str; --max-log-len int
--enable-prompt-tokens-details switch; --enable-per-request-metrics switch
--enable-server-load-tracking switch; --enable-force-include-usage switch
--sse-keep-alive-interval int =0; --enable-tokenizer-info-endpoint switch
--enable-log-outputs switch; --enable-log-deltas switch =true
--cohere-is-reasoning-model switch =true; --cohere-format str =cmd4
--anthropic-disabled-thinking-effort str {auto|high|low|max|medium|none|xhigh} =auto
--log-error-stack switch; --tokens-only switch; --enable-scale-out switch
--fingerprint-mode str {custom|full|hash|none} =full; --fingerprint-value str; --host str
--port int =8000; --grpc-port int; --data-parallel-supervisor-port int =9256
--dp-supervisor-probe-interval-s float =5.0; --dp-supervisor-probe-timeout-s float =5.0
--dp-supervisor-probe-failure-threshold int =3; --uds str
--uvicorn-log-level str {critical|debug|error|info|trace|warning} =info
--disable-uvicorn-access-log switch; --disable-access-log-for-endpoints str
--allow-credentials switch; --allowed-origins json; --allowed-methods json; --allowed-headers json
--api-key str+; --ssl-keyfile str; --ssl-certfile str; --ssl-ca-certs str
--enable-ssl-refresh switch; --ssl-cert-reqs int; --ssl-ciphers str; --root-path str
--middleware append; --enable-request-id-headers switch; --disable-fastapi-docs switch
--h11-max-incomplete-event-size int =4194304; --h11-max-header-count int =256
--enable-offline-docs switch; --enable-flash-late-interaction switch =true; --config str
--headless flag; --api-server-count,-asc int; --grpc flag
`
