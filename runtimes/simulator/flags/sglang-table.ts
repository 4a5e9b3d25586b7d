/**
 * Flags of `python3 -m sglang.launch_server` (SGLang 0.5.23, `srt/arg_groups/fields/`),
 * first half: names,
 * type, {choices}, =default. Format: flags/argparse.ts.
 */
export const sglangFlags = `
--device str; --base-gpu-id int =0; --gpu-id-step int =1; --random-seed int
--mlx-enable-sampling flag; --watchdog-timeout float =300; --soft-watchdog-timeout float
--sleep-on-idle flag; --use-ray flag; --numa-node int+; --gc-threshold int+
--decoupled-spec-bind-endpoint str; --decoupled-spec-connect-endpoints json
--decoupled-spec-rank int; --decoupled-spec-role str {null|verifier|drafter} =null
--disaggregation-mode str {null|prefill|decode} =null
--disaggregation-decode-allocation-policy str {early|prefill_complete} =early
--disaggregation-transfer-backend str {mooncake|nixl|ascend|fake|mori|mooncake_tcp} =mooncake
--disaggregation-enable-kv-checksum flag; --disaggregation-bootstrap-port int =8998
--disaggregation-ib-device str; --disaggregation-decode-enable-radix-cache flag
--disaggregation-decode-enable-offload-kvcache flag
--disaggregation-decode-retraction-backup str {cpu_tensor|host_pool|none}
--num-reserved-decode-tokens int =512; --disaggregation-decode-extra-slots int
--disaggregation-decode-polling-interval int =1; --enable-pd-role-switch flag
--optimistic-prefill-attempts int =0; --encoder-only flag; --language-only flag
--language-model-only flag
--encoder-transfer-backend str {auto|zmq_to_scheduler|zmq_to_tokenizer|mooncake} =auto
--encoder-urls str+; --encoder-bootstrap-port int =8997; --encoder-register-urls str+
--enable-adaptive-dispatch-to-encoder flag; --enable-pdmux flag; --pdmux-config-path str
--sm-group-num int =8; --disaggregation-decode-host-receive-threshold float =1.0
--enable-fp32-lm-head flag; --enable-tf32-matmul switch; --enable-memory-saver flag
--enable-weights-cpu-backup flag; --enable-draft-weights-cpu-backup flag
--enable-custom-logit-processor flag; --enable-watermark flag; --watermark-config str
--enable-return-hidden-states flag; --return-hidden-states-mode str {last|full}
--enable-return-aux-hidden-states flag; --return-aux-hidden-state-layer-ids int+
--enable-return-routed-experts flag; --enable-return-indexer-topk flag
--enable-encoder-swa-bounded-replay flag; --enable-decoder-swa-bounded-replay switch
--sampling-mask-max-tokens int =4096; --disable-outlines-disk-cache flag; --enable-mis flag
--attention-backend str {triton|torch_native|flex_attention|dsa|nsa|qsa|dsv4|compressed|fa3|
  fa4|flashinfer|llada2_cfg_flashinfer|flashmla|trtllm_mla|cutedsl_mla|tokenspeed_mla|
  trtllm_mha|hpc_ops|minicpm_flashattn|minicpm_flashinfer|aiter|wave|intel_amx|ascend|
  intel_xpu}
--decode-attention-backend str {triton|torch_native|flex_attention|dsa|nsa|qsa|dsv4|
  compressed|fa3|fa4|flashinfer|llada2_cfg_flashinfer|flashmla|trtllm_mla|cutedsl_mla|
  tokenspeed_mla|trtllm_mha|hpc_ops|minicpm_flashattn|minicpm_flashinfer|aiter|wave|
  intel_amx|ascend|intel_xpu}
--enable-lean-attention flag; --enable-nvidia-megakernel flag; --enable-amd-monokernel flag
--prefill-attention-backend str {triton|torch_native|flex_attention|dsa|nsa|qsa|dsv4|
  compressed|fa3|fa4|flashinfer|llada2_cfg_flashinfer|flashmla|trtllm_mla|cutedsl_mla|
  tokenspeed_mla|trtllm_mha|hpc_ops|minicpm_flashattn|minicpm_flashinfer|aiter|wave|
  intel_amx|ascend|intel_xpu}
--prefill-kv-cache-dequant-dtype str {auto|nvfp4|fp8_e4m3} =auto
--grammar-backend str {xgrammar|outlines|llguidance|none}
--fp8-gemm-backend str {auto|deep_gemm|flashinfer_trtllm|flashinfer_cutlass|
  flashinfer_deepgemm|flashinfer_cutedsl|cutlass|triton|
  aiter} =auto
--fp4-gemm-backend str {auto|flashinfer_cudnn|flashinfer_cutedsl|flashinfer_cutlass|
  flashinfer_trtllm|marlin} =auto
--bf16-gemm-backend str {auto|cutedsl|gemv|torch} =auto
--dsa-prefill-backend str {flashmla_sparse|flashmla_sparse_q8|flashmla_kv|flashmla_auto|
  flashinfer_sparse_mla|triton_sparse_mla|fa3|tilelang|triton|aiter|trtllm|intel_xpu}
--dsv4-prefill-backend str {auto|flashmla_sparse|flashmla_sparse_q8} =auto
--dsa-triton-union int {0|2|4} =0
--dsa-decode-backend str {flashmla_sparse|flashmla_sparse_q8|flashmla_kv|flashmla_auto|
  flashinfer_sparse_mla|fa3|tilelang|triton|aiter|trtllm|intel_xpu}
--dsv4-attn-backend str {auto|flashmla|flashmla_mega|trtllm} =auto
--dsa-paged-mqa-logits-backend str {auto|deepgemm|cutedsl|aiter} =auto
--dsa-topk-backend str {sgl-kernel|torch|flashinfer} =sgl-kernel
--disable-flashinfer-autotune flag; --flashinfer-autotune-skip-ops str+
--triton-attention-reduce-in-fp32 flag; --triton-attention-num-kv-splits int =8
--triton-attention-split-tile-size int; --flashinfer-mla-disable-ragged flag
--enable-fused-qk-norm-rope switch; --enable-precise-embedding-interpolation flag
--enable-deepseek-v4-fp4-indexer flag; --enable-dsa-fused-indexer switch
--mamba-backend str {triton|flashinfer} =triton; --mamba-ssm-dtype str {float32|bfloat16|float16}
--mamba-max-states-per-path int =-1; --enable-mamba-cache-stochastic-rounding flag
--mamba-cache-philox-rounds int =0
--mamba-radix-cache-strategy str {auto|no_buffer|extra_buffer|extra_buffer_lazy} =auto
--mamba-track-interval int =256; --enable-int8-mamba-checkpoint flag; --int8-mamba-ckpt-size int
--linear-attn-backend str {triton|cutedsl|flashinfer|flashkda|nvidia_kda|ptx_kda|helion|
  intel_xpu} =triton
--linear-attn-decode-backend str {triton|cutedsl|flashinfer|flashkda|nvidia_kda|ptx_kda|
  helion|intel_xpu}
--linear-attn-prefill-backend str {triton|cutedsl|flashinfer|flashkda|nvidia_kda|ptx_kda|
  helion|intel_xpu}
--linear-attn-verify-backend str {triton|cutedsl|flashinfer|flashkda|nvidia_kda|ptx_kda|
  helion|intel_xpu|nv_cutedsl}
--enable-linear-replayssm flag; --linear-replayssm-cache-len int =16
--enable-linear-replayssm-spec flag; --cuda-graph-config str
--cuda-graph-backend-decode str {full|breakable|disabled}
--cuda-graph-backend-prefill str {full|breakable|disabled}; --cuda-graph-max-bs-decode int
--cuda-graph-max-bs-prefill int; --cuda-graph-max-seq-len-prefill int; --cuda-graph-bs-decode int+
--cuda-graph-bs-prefill int+; --cuda-graph-prefill-max-context,--context-bucket int
--disable-prefill-cuda-graph flag; --disable-decode-cuda-graph flag
--disable-cuda-graph-padding flag; --enable-profile-cuda-graph flag; --enable-cudagraph-gc flag
--debug-cuda-graph flag; --enable-torch-compile flag; --enable-torch-compile-debug-mode flag
--torch-compile-max-bs int =32; --enable-layerwise-nvtx-marker flag; --enable-nccl-nvls flag
--enable-symm-mem flag; --disable-custom-all-reduce flag; --enable-mscclpp flag
--enable-torch-symm-mem flag; --enable-scattered-sconv flag; --pre-warm-nccl flag
--boundary-reduction str {auto|ar|rs|rsv|rs+rsv} =auto; --enable-quant-communications flag
--enforce-disable-flashinfer-allreduce-fusion flag
--flashinfer-allreduce-fusion-backend str {auto|trtllm|mnnvl|cutedsl}
--enable-aiter-allreduce-fusion flag; --disable-aiter-allreduce-fusion-in-prefill flag
--disable-aiter-allreduce-fusion-in-decode flag; --enable-fused-moe-sum-all-reduce flag
--moe-a2a-backend str {none|deepep|mooncake|nixl|mori|ascend_fuseep|flashinfer|megamoe|
  deepep_v2|pplx|ascend_tp|flashinfer_megamoe} =none
--enable-w4a4-mxfp4-megamoe flag; --deepep-v2-mode str {direct|hybrid} =direct
--moe-runner-backend str {auto|deep_gemm|triton|triton_kernel|flashinfer_trtllm|
  experimental_sgl_trtllm|flashinfer_trtllm_routed|flashinfer_cutlass|flashinfer_mxfp4|
  flashinfer_cutedsl|flashinfer_megamoe|cutlass|aiter|marlin|humming|
  experimental_sgl_marlin|lora_cutedsl|lora_triton|lora_marlin|hpc_ops|megamoe|
  intel_xpu} =auto
--flashinfer-mxfp4-moe-precision str {default|bf16|fp8} =default
--deepep-mode str {auto|normal|low_latency} =auto; --fuseep-mode int {1|2} =2
--deepep-dispatcher-output-dtype str {auto|bf16|fp8|int8|nvfp4} =auto
--flashinfer-a2a-dispatch-type str {auto|bf16|nvfp4|mxfp8}; --ep-num-redundant-experts int =0
--ep-dispatch-algorithm str {static|dynamic|fake|lp}; --init-expert-location str =trivial
--enable-eplb flag; --eplb-algorithm str =auto; --eplb-rebalance-num-iterations int =1000
--eplb-rebalance-layers-per-chunk int; --eplb-min-rebalancing-utilization-threshold float =1.0
--expert-distribution-recorder-mode str {stat|stat_approx|per_pass|per_token}
--expert-distribution-recorder-buffer-size int
--expert-balancedness-report-mode str {off|server_log|prometheus|both} =off
--deepep-config str; --elastic-ep-backend str {none|mooncake|nixl}
--enable-elastic-expert-backup flag; --mooncake-ib-device str; --enable-waterfill flag
--elastic-ep-join-mode str {scale|recover}; --elastic-ep-scale-timeout float =600
--disable-flashinfer-cutlass-moe-fp4-allgather flag; --disable-shared-experts-fusion flag
--enforce-shared-experts-fusion flag; --enable-paged-experts flag
--paged-experts-num-resident int; --kt-weight-path str; --kt-method str =AMXINT4
--kt-cpuinfer int; --kt-threadpool-count int =2; --kt-num-gpu-experts int
--kt-max-deferred-experts-per-token int; --enable-two-batch-overlap flag
--enable-single-batch-overlap flag; --tbo-token-distribution-threshold float =0.48
--cpu-offload-gb int =0; --offload-group-size int =-1; --offload-num-in-group int =1
--offload-prefetch-step int =1; --offload-mode str =cpu; --ple-offload-embedding switch
--ple-offload-backend str {pinned|file} =pinned; --ple-offload-dir str; --dllm-algorithm str
--dllm-algorithm-config str; --dllm-fdfo switch =true; --enable-deterministic-inference flag
--rl-on-policy-target str {fsdp}; --enable-lora flag; --enable-lora-overlap-loading flag
--max-lora-rank int; --lora-target-modules str*; --lora-paths str; --max-loaded-loras int
--max-loras-per-batch int =8; --lora-eviction-policy str {lru|fifo} =lru
--lora-backend str {triton|csgmv|ascend|torch_native|triton_v2} =csgmv
--max-lora-chunk-size int {16|32|64|128} =16; --experts-shared-outer-loras switch
--lora-use-virtual-experts flag; --lora-strict-loading switch
--lora-drain-wait-threshold float =0.0
--radix-eviction-policy str {lru|lfu|slru|priority|tlru} =lru
--radix-eviction-policy-config json; --disable-radix-cache flag
--enable-page-major-kv-layout flag; --enable-unified-memory flag
--enable-session-radix-cache flag; --radix-cache-backend str
--enable-hierarchical-cache,--enable-hicache flag
--hicache-host-memory-mode str {cache|buffer_only} =cache; --hicache-ratio float
--hicache-size int =0; --hicache-host-memory-fraction float =0.8
--hicache-write-policy str {write_back|write_through|write_through_selective} =write_through
--hicache-io-backend str {direct|kernel|kernel_ascend} =kernel
--hicache-mem-layout str {layer_first|page_first|page_first_direct|page_first_kv_split|
  page_head} =page_first
--hicache-storage-backend str {file|sim|mooncake|npu_memcache|hf3fs|nixl|aibrix|dynamic|eic|
  simm|mori|shm|tensorcast|seaweedfs}
--hicache-storage-prefetch-policy str {best_effort|wait_complete|timeout} =timeout
--hicache-storage-backend-extra-config str; --hicache-storage-prefetch-retry-poll-interval int =8
--hicache-storage-prefetch-retry-max-attempts int =8; --enable-unified-cache-external-linker flag
--unified-cache-external-linker-backend str {mooncake|mori|dynamic} =mooncake
--unified-cache-external-linker-config json; --enable-linker-mla-dedup flag
--enable-hisparse flag
--hisparse-config,--hierarchical-sparse-attention-extra-config str
--enable-lmcache flag; --lmcache-config-file str; --enable-flexkv flag; --flexkv-config-file str
--enable-multimodal flag
--mm-attention-backend str {sdpa|fa3|fa4|triton_attn|ascend_attn|aiter_attn|
  flashinfer_cudnn|amx_attn|xpu_attn}
--enable-broadcast-mm-inputs-process flag; --enable-prefix-mm-cache flag
--mm-enable-dp-encoder switch; --mm-process-config json; --mm-processor-worker-num int =0
--mm-io-worker-num int =0; --allowed-media-domains str+; --media-url-max-file-size-mb int =64
--mm-preprocess-cache-size-mb int; --trust-mm-content-hashes flag
--limit-mm-data-per-request json; --enable-mm-global-cache flag
--image-processor-backend str {auto|torchvision|pil} =auto
--mm-global-cache-backend str {mooncake} =mooncake; --disable-fast-image-processor flag
--mm-feature-transport str {cpu|cuda_ipc|cuda_vmm}; --model-path,--model str
--load-format str {auto|pt|safetensors|instanttensor|npcache|dummy|sharded_state|presharded|
  gguf|expert_pack|bitsandbytes|mistral|layered|flash_rl|remote|remote_instance|
  fastsafetensors|private|runai_streamer} =auto
--model-loader-extra-config str ={}; --trust-remote-code flag; --context-length int
--is-embedding flag; --revision str; --model-impl str =auto; --model-config-parser str =auto
--json-model-override-args str ={}; --dtype str {auto|half|float16|bfloat16|float|float32} =auto
--quantization str {awq|fp8|mxfp8|gptq|gptq_marlin|awq_marlin|bitsandbytes|gguf|modelopt|
  modelopt_fp8|modelopt_fp4|nvfp4_online|modelopt_mixed|petit_nvfp4|w8a8_int8|w8a8_fp8|
  moe_wna16|w4afp8|mxfp4|auto-round|auto-round-int8|compressed-tensors|modelslim|mxfp_w4a8|
  quark|quark_int4fp8_moe|quark_mxfp4|mlx_q4|mlx_q8|unquant|humming}
--quantization-param-path str
`
