import { describe, expect, it } from 'vitest'
import { readVllm } from '../../runtimes/simulator/flags/vllm.ts'
import { vllm } from '../../runtimes/vllm.ts'
import { lines, rankOf } from '../support/launches.ts'
import { deploymentOf, H20, nodeOf, QWQ, R1, THREE } from '../support/plans.ts'

const R1_VLLM = deploymentOf('deepseek-r1', {
  weights: { huggingface: 'deepseek-ai/DeepSeek-R1', revision: 'main' },
  parallel: { nodes: 2, tensor: 16 },
  context: 65_536,
  readyTimeout: '90m',
})

describe('the command line, literally', () => {
  it('QwQ on one GPU', () => {
    const spec = rankOf(THREE, QWQ)
    expect(spec.image).toBe('vllm/vllm-openai:v0.30.0')
    expect(lines(spec.command)).toBe(`vllm serve Qwen/QwQ-32B
--served-model-name qwq-32b
--host 10.0.0.11
--port 8100
--tensor-parallel-size 1
--pipeline-parallel-size 1
--max-model-len 65536
--gpu-memory-utilization 0.92
--kv-cache-dtype auto
--reasoning-parser deepseek_r1
--enable-auto-tool-choice
--tool-call-parser hermes
--enable-prompt-tokens-details
--shutdown-timeout 30`)
    expect(spec.environment).toEqual({
      VLLM_HOST_IP: '10.0.0.11',
      VLLM_ENGINE_READY_TIMEOUT_S: '3600',
      VLLM_HTTP_TIMEOUT_KEEP_ALIVE: '120',
      VLLM_NO_USAGE_STATS: '1',
      VLLM_CACHE_ROOT: '/weights/.cache/vllm',
      HF_HOME: '/weights/huggingface',
    })
    expect(spec.mounts).toEqual([{ host: '/data/models', inside: '/weights', readOnly: false }])
    expect(spec.stopGraceMs).toBe(45_000)
  })

  it('R1 over two nodes, tensor 16: the leader serves, the follower is headless', () => {
    expect(lines(rankOf(THREE, R1_VLLM, 0).command)).toBe(`vllm serve deepseek-ai/DeepSeek-R1
--served-model-name deepseek-r1
--revision main
--host 10.0.0.21
--port 8100
--tensor-parallel-size 16
--pipeline-parallel-size 1
--nnodes 2
--node-rank 0
--master-addr 10.0.0.21
--master-port 29500
--distributed-timeout-seconds 5400
--cpu-distributed-timeout-seconds 5400
--max-model-len 65536
--gpu-memory-utilization 0.92
--kv-cache-dtype auto
--trust-remote-code
--reasoning-parser deepseek_r1
--enable-prompt-tokens-details
--shutdown-timeout 30`)
    const follower = rankOf(THREE, R1_VLLM, 1)
    expect(lines(follower.command)).toBe(`vllm serve deepseek-ai/DeepSeek-R1
--served-model-name deepseek-r1
--revision main
--tensor-parallel-size 16
--pipeline-parallel-size 1
--nnodes 2
--node-rank 1
--master-addr 10.0.0.21
--master-port 29500
--distributed-timeout-seconds 5400
--cpu-distributed-timeout-seconds 5400
--headless
--max-model-len 65536
--gpu-memory-utilization 0.92
--kv-cache-dtype auto
--trust-remote-code
--reasoning-parser deepseek_r1
--enable-prompt-tokens-details
--shutdown-timeout 30`)
    expect(follower.environment).toEqual({
      VLLM_HOST_IP: '10.0.0.22',
      VLLM_ENGINE_READY_TIMEOUT_S: '5400',
      VLLM_HTTP_TIMEOUT_KEEP_ALIVE: '120',
      VLLM_NO_USAGE_STATS: '1',
      VLLM_CACHE_ROOT: '/weights/.cache/vllm',
      HF_HOME: '/weights/huggingface',
      NCCL_SOCKET_IFNAME: 'bond0',
      GLOO_SOCKET_IFNAME: 'bond0',
      NCCL_IB_HCA: 'mlx5_0,mlx5_1',
      NCCL_IB_GID_INDEX: '3',
    })
  })

  it('R1 over two nodes, tensor 8 x pipeline 2', () => {
    const parallel = { nodes: 2, tensor: 8, pipeline: 2 }
    const command = lines(rankOf(THREE, { ...R1_VLLM, parallel }).command)
    expect(command).toContain(
      '\n--tensor-parallel-size 8\n--pipeline-parallel-size 2\n--nnodes 2\n',
    )
  })

  it.each([
    ['kvCache', { kvCache: 'fp8', context: 131_072 }, '--kv-cache-dtype fp8'],
    ['maxRunning', { maxRunning: 64 }, '--max-num-seqs 64'],
    ['memoryFraction', { memoryFraction: 0.95 }, '--gpu-memory-utilization 0.95'],
    ['reasoning', { reasoning: 'qwen3' }, '--reasoning-parser qwen3'],
    [
      'extraArguments, last',
      { extraArguments: ['--seed', '1'] },
      '--shutdown-timeout 30\n--seed 1',
    ],
  ])('%s', (_, settings, expected) => {
    const command = lines(rankOf(THREE, deploymentOf('qwq', settings)).command)
    expect(`${command}\n`).toContain(`\n${expected}\n`)
  })

  it('parsers off', () => {
    const off = deploymentOf('qwq', { reasoning: 'none', tools: 'none' })
    expect(rankOf(THREE, off).command.join(' ')).not.toMatch(/parser|auto-tool-choice/)
  })
})

describe('where the weights come from', () => {
  const specWith = (weights: Record<string, unknown>, node: Record<string, unknown> = {}) =>
    rankOf([nodeOf('a', node)], deploymentOf('qwq', { weights, architecture: SHAPE }))
  const SHAPE = {
    weightBytes: 2e9,
    parameters: 1e9,
    hiddenSize: 2048,
    layers: 24,
    attentionHeads: 16,
    kvHeads: 8,
    vocabulary: 32_000,
    maxContext: 32_768,
  }

  it('ModelScope, offline', () => {
    const spec = specWith({ modelscope: 'Qwen/QwQ-32B', offline: true })
    expect(spec.command[2]).toBe('Qwen/QwQ-32B')
    expect(spec.environment).toMatchObject({
      VLLM_USE_MODELSCOPE: 'true',
      MODELSCOPE_CACHE: '/weights/modelscope',
      HF_HUB_OFFLINE: '1',
    })
  })

  it('`from` decides where both hubs are given', () => {
    const both = { huggingface: 'Qwen/QwQ-32B', modelscope: 'qwen/QwQ', from: 'huggingface' }
    expect(specWith(both).command[2]).toBe('Qwen/QwQ-32B')
    expect(specWith({ ...both, from: 'modelscope' }).command[2]).toBe('qwen/QwQ')
    expect(specWith(both).environment.VLLM_USE_MODELSCOPE).toBeUndefined()
  })

  it('an absolute path is mounted as itself, read-only', () => {
    const spec = specWith({ path: '/nvme/qwq' })
    expect(spec.command[2]).toBe('/nvme/qwq')
    expect(spec.mounts).toContainEqual({ host: '/nvme/qwq', inside: '/nvme/qwq', readOnly: true })
    expect(spec.environment.HF_HUB_OFFLINE).toBe('1')
  })

  it("a relative path is below the node's weights", () => {
    const spec = specWith({ path: 'qwq' }, { weights: '/data/models/' })
    expect(spec.command[2]).toBe('/weights/qwq')
    expect(spec.mounts).toEqual([{ host: '/data/models', inside: '/weights', readOnly: false }])
  })

  it('without a directory on the node, a Docker volume keeps them', () => {
    const { mounts } = specWith({ huggingface: 'Qwen/QwQ-32B' }, { weights: undefined })
    expect(mounts).toEqual([{ host: 'penstock-cache', inside: '/weights', readOnly: false }])
  })

  it('a process has no mounts: its paths are those of the machine', () => {
    const spec = specWith({ path: 'qwq' }, { driver: 'process' })
    expect(spec.command[2]).toBe('/data/models/qwq')
    expect(spec.mounts).toEqual([])
    expect(spec.environment.VLLM_CACHE_ROOT).toBe('/data/models/.cache/vllm')
    const bare = specWith({ path: '/m' }, { driver: 'process', weights: undefined })
    expect(bare.environment.VLLM_CACHE_ROOT).toBeUndefined()
  })

  it('on a cpu node no share of VRAM, but a size for the cache', () => {
    const node = nodeOf('cpu', { device: 'cpu', gpus: undefined, driver: 'process' })
    const tiny = deploymentOf('tiny', {
      weights: { path: '/models/tiny' },
      architecture: SHAPE,
      nodes: ['cpu'],
      context: 2048,
    })
    const spec = rankOf([node], tiny)
    expect(spec.command.join(' ')).not.toContain('memory-utilization')
    expect(spec.environment.VLLM_CPU_KVCACHE_SPACE).toBe('4')
  })

  it("what the manifest sets in `environment` wins over Penstock's", () => {
    const spec = rankOf(THREE, deploymentOf('qwq', { environment: { HF_HOME: '/elsewhere' } }))
    expect(spec.environment.HF_HOME).toBe('/elsewhere')
  })
})

describe('arguments that contradict', () => {
  const against = (...extraArguments: string[]) =>
    vllm.contradictions(deploymentOf('qwq', { extraArguments }))

  it.each([
    ['--port', '9000'],
    ['--port=9000'],
    ['--max-model-len', '8192'],
    ['--max_model_len=8192'],
    ['--tensor-parallel-size=2'],
    ['-tp', '2'],
    ['-tp=2'],
    ['-n', '2'],
    ['-n2'],
    ['-r=1'],
    ['--tensor-par', '2'],
    ['--gpu-memory-utilization', '0.5'],
    ['--device-memory-utilization', '0.5'],
    ['--served-model-name', 'x'],
    ['--api-key', 'x'],
    ['--disable-log-stats'],
    ['--distributed-executor-backend', 'ray'],
    ['-dp', '2'],
    ['--no-enable-prompt-tokens-details'],
    ['--config', 'file.yaml'],
  ])('%s %s', (...given) => {
    const found = against(...given)
    expect(found).toHaveLength(1)
    expect(found[0]).toContain(JSON.stringify(given[0]))
  })

  it.each([
    ['--seed', '1'],
    ['--enable-expert-parallel'],
    ['--model-impl', 'vllm'],
    ['--speculative-config', '{"method": "mtp", "num_speculative_tokens": 1}'],
    ['--chat-template', '/weights/template.jinja'],
    ['--no-enable-prefix-caching'],
    ['--max-num-batched-tokens=4096'],
    ['--compilation-config.mode', '3'],
    ['-O3'],
    ['--seed', '-1'],
  ])('not %s %s', (...given) => {
    expect(against(...given)).toEqual([])
  })

  it('flag and value in one item', () => {
    expect(against('--seed 1')[0]).toContain('write flag and value as two')
  })

  it('variables that are not to be set', () => {
    const environment = { VLLM_HOST_IP: '1.2.3.4', CUDA_VISIBLE_DEVICES: '0', NCCL_DEBUG: 'INFO' }
    expect(vllm.contradictions(deploymentOf('qwq', { environment }))).toEqual([
      "environment VLLM_HOST_IP: set the node's address",
      'environment CUDA_VISIBLE_DEVICES: Penstock gives out the GPUs',
    ])
  })
})

describe('the command lines pass the parser made from the source of vLLM', () => {
  const facts = {
    maxContext: 163_840,
    attentionHeads: 128,
    memoryBytes: H20.memoryBytes.value,
    localGpus: 8,
    environment: {},
  }
  it.each([
    ['QwQ', QWQ, 40, 0],
    ['R1 tensor 16, rank 0', R1_VLLM, 128, 0],
    ['R1 tensor 16, rank 1', R1_VLLM, 128, 1],
    ['R1 pipeline', { ...R1_VLLM, parallel: { nodes: 2, tensor: 8, pipeline: 2 } }, 128, 1],
    ['fp8 KV', deploymentOf('qwq', { kvCache: 'fp8', maxRunning: 4 }), 40, 0],
  ] as const)('%s', (_, deployment, attentionHeads, rank) => {
    const spec = rankOf(THREE, deployment, rank)
    const command = readVllm(spec.command.slice(2), { ...facts, attentionHeads })
    if (!command.ok) throw new Error(command.message)
    expect(command.settings).toMatchObject({
      servedNames: [deployment.name],
      contextTokens: deployment.context,
      tensor: deployment.parallel.tensor,
      pipeline: deployment.parallel.pipeline,
      nodes: deployment.parallel.nodes,
      nodeRank: rank,
      headless: rank > 0,
      reasoningParser: 'deepseek_r1',
      cachedTokensInUsage: true,
    })
  })

  it('and R1 of the other engine does not', () => {
    expect(readVllm(rankOf(THREE, R1).command.slice(2), facts).ok).toBe(false)
  })
})

describe('start-up phases from log lines', () => {
  it.each([
    [
      '(APIServer pid=1) INFO 03-18 06:55:01 [api_server.py:1102] vLLM API server version 0.30.0',
      { phase: 'start' },
    ],
    [
      "(EngineCore pid=165) INFO 03-18 06:55:20 [core.py:92] Initializing a V1 LLM engine (v0.30.0) with config: model='Qwen/QwQ-32B'",
      { phase: 'rendezvous' },
    ],
    [
      '(Worker pid=9) INFO [parallel_state.py:1208] world_size=16 rank=3 local_rank=3 distributed_init_method=tcp://10.0.0.21:29500 backend=nccl',
      { phase: 'rendezvous' },
    ],
    [
      '(EngineCore pid=165) INFO [gpu_model_runner.py:2338] Starting to load model Qwen/QwQ-32B...',
      { phase: 'weights' },
    ],
    [
      'Loading safetensors checkpoint shards:  42% Completed | 68/163 [00:13<00:11,  2.87s/it]',
      { phase: 'weights', ratio: 68 / 163 },
    ],
    [
      'Loading safetensors checkpoint shards: 100% Completed | 9/9 [00:29<00:00,  3.32s/it]',
      { phase: 'weights', ratio: 1 },
    ],
    [
      '(EngineCore pid=7) Loading fastsafetensors checkpoint shards:  20% Completed | 1/5 [00:00<00:02]',
      { phase: 'weights', ratio: 0.2 },
    ],
    [
      '(Worker_TP0 pid=34322) INFO 05-06 20:59:57 [default_loader.py:384] Loading weights took 24.84 seconds',
      { phase: 'profile' },
    ],
    [
      "INFO 06-02 00:51:49 [backends.py:1089] Using cache directory: /root/.cache/vllm/torch_compile_cache/a00dd112c3/rank_0_0/backbone for vLLM's torch.compile",
      { phase: 'profile' },
    ],
    [
      '(EngineCore_DP0 pid=165) INFO 03-18 06:57:23 [monitor.py:34] torch.compile takes 92.20 s in total',
      { phase: 'profile' },
    ],
    [
      '(EngineCore_DP0 pid=165) INFO 03-18 06:57:25 [kv_cache_utils.py:1291] GPU KV cache size: 208,320 tokens',
      { phase: 'profile' },
    ],
    [
      'Capturing CUDA graphs (mixed prefill-decode, PIECEWISE): 100%|██████████| 51/51 [00:04<00:00, 10.66it/s]',
      { phase: 'graphs', ratio: 1 },
    ],
    [
      'Capturing CUDA graphs (decode, FULL):   6%|██████▊       | 3/51 [00:01<00:24,  1.95it/s]',
      { phase: 'graphs', ratio: 3 / 51 },
    ],
    // tqdm rewrites its line: the newest figure is the last.
    [
      'Capturing CUDA graphs: 10%|# | 5/50\rCapturing CUDA graphs: 20%|## | 10/50',
      { phase: 'graphs', ratio: 0.2 },
    ],
    [
      '(EngineCore_DP0 pid=165) INFO 03-18 06:57:57 [gpu_model_runner.py:4587] Graph capturing finished in 24 secs, took 1.00 GiB',
      { phase: 'graphs' },
    ],
    ['INFO:     Application startup complete.', { phase: 'ready' }],
    ['INFO:     127.0.0.1:38328 - "GET /health HTTP/1.1" 200 OK', null],
    ['', null],
    ['x'.repeat(1_000_000), null],
  ])('%.70s', (line, expected) => {
    expect(vllm.phase(line)).toEqual(expected)
  })
})

describe('readiness and metrics', () => {
  it('asks /health, and gives a busy machine time to answer', () => {
    expect(vllm.ready).toEqual({ path: '/health', probeTimeoutMs: 10_000 })
  })

  it('every signal has a name, the newest first, old ones after it', () => {
    expect(Object.values(vllm.metrics).every((aliases) => aliases.length > 0)).toBe(true)
    expect(vllm.metrics.kvCacheUsageRatio.map(({ metric }) => metric)).toEqual([
      'vllm:kv_cache_usage_perc',
      'vllm:gpu_cache_usage_perc',
    ])
  })
})
