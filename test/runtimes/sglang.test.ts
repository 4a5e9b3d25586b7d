import { describe, expect, it } from 'vitest'
import { sglang } from '../../runtimes/sglang.ts'
import { readSglang } from '../../runtimes/simulator/flags/sglang.ts'
import { GIB } from '../../src/core/units.ts'
import { lines, rankOf } from '../support/launches.ts'
import { deploymentOf, H20, nodeOf, planOf, QWQ, R1, THREE } from '../support/plans.ts'

const QWQ_SGLANG = { ...QWQ, engine: 'sglang' as const }

describe('the command line, literally', () => {
  it('QwQ on one GPU', () => {
    const spec = rankOf(THREE, QWQ_SGLANG)
    expect(spec.image).toBe('lmsysorg/sglang:v0.5.20')
    expect(lines(spec.command)).toBe(`python3
-m sglang.launch_server
--model-path Qwen/QwQ-32B
--served-model-name qwq-32b
--host 10.0.0.11
--port 8100
--tp-size 1
--pp-size 1
--context-length 65536
--mem-fraction-static 0.898
--kv-cache-dtype auto
--reasoning-parser deepseek-r1
--tool-call-parser qwen25
--enable-metrics
--enable-cache-report
--watchdog-timeout 1800`)
    expect(spec.environment).toEqual({
      SGLANG_HOST_IP: '10.0.0.11',
      SGLANG_TIMEOUT_KEEP_ALIVE: '120',
      SGLANG_CACHE_DIR: '/weights/.cache/sglang',
      SGLANG_DG_CACHE_DIR: '/weights/.cache/deep_gemm',
      HF_HOME: '/weights/huggingface',
    })
  })

  it('R1 over two nodes: the same line on both, but for address and rank', () => {
    const [leader, follower] = [0, 1].map((rank) => rankOf(THREE, R1, rank))
    expect(lines(leader?.command ?? [])).toBe(`python3
-m sglang.launch_server
--model-path deepseek-ai/DeepSeek-R1
--served-model-name deepseek-r1
--revision main
--host 10.0.0.21
--port 8100
--tp-size 16
--pp-size 1
--nnodes 2
--node-rank 0
--dist-init-addr 10.0.0.21:29500
--dist-timeout 3600
--context-length 65536
--mem-fraction-static 0.867
--kv-cache-dtype auto
--trust-remote-code
--reasoning-parser deepseek-r1
--enable-metrics
--enable-cache-report
--watchdog-timeout 1800`)
    const differing = follower?.command.filter((word, at) => word !== leader?.command[at])
    expect(differing).toEqual(['10.0.0.22', '1'])
    expect(follower?.environment).toEqual({
      SGLANG_HOST_IP: '10.0.0.22',
      SGLANG_TIMEOUT_KEEP_ALIVE: '120',
      SGLANG_CACHE_DIR: '/weights/.cache/sglang',
      SGLANG_DG_CACHE_DIR: '/weights/.cache/deep_gemm',
      HF_HOME: '/weights/huggingface',
      NCCL_SOCKET_IFNAME: 'bond0',
      GLOO_SOCKET_IFNAME: 'bond0',
      NCCL_IB_HCA: 'mlx5_0,mlx5_1',
      NCCL_IB_GID_INDEX: '3',
    })
  })

  it('R1 with pipeline 2, fp8 KV and a batch limit', () => {
    const parallel = { nodes: 2, tensor: 8, pipeline: 2 }
    const spec = rankOf(THREE, { ...R1, parallel, kvCache: 'fp8', maxRunning: 128 })
    const text = lines(spec.command)
    expect(text).toContain('\n--tp-size 8\n--pp-size 2\n--nnodes 2\n')
    expect(text).toContain('\n--kv-cache-dtype fp8_e4m3\n--max-running-requests 128\n')
  })

  it('ModelScope, offline', () => {
    const weights = { modelscope: 'deepseek-ai/DeepSeek-R1', offline: true }
    const { environment } = rankOf(THREE, { ...R1, weights })
    expect(environment).toMatchObject({
      SGLANG_USE_MODELSCOPE: 'true',
      MODELSCOPE_CACHE: '/weights/modelscope',
      HF_HUB_OFFLINE: '1',
    })
  })

  it('IPv6 addresses in brackets where a port follows', () => {
    const nodes = ['fd00::a', 'fd00::b'].map((address, at) => nodeOf(`n${at}`, { address }))
    const spec = rankOf(nodes, R1, 1)
    expect(lines(spec.command)).toContain('--dist-init-addr [fd00::a]:29500')
    expect(lines(spec.command)).toContain('--host fd00::b')
  })

  it('a follower on other GPUs than the leader takes a port of its own', () => {
    const four = nodeOf('b', { address: '10.0.0.2' })
    const pair = deploymentOf('pair', {
      engine: 'sglang',
      weights: { huggingface: 'deepseek-ai/DeepSeek-R1' },
      parallel: { nodes: 2, tensor: 16 },
      nodes: ['a', 'b'],
    })
    const wide = nodeOf('a', { address: '10.0.0.1', gpus: { profile: 'h20-96g', count: 16 } })
    const blocker = deploymentOf('blocker', {
      nodes: ['a'],
      parallel: { tensor: 8, nodes: 1 },
      context: 131_072,
    })
    const first = planOf([wide, four], [blocker])
    const containers = first.deployments.flatMap(({ replicas }) =>
      replicas.flatMap(({ ranks }) =>
        ranks.map(({ name, labels }) => ({
          name,
          labels,
          state: 'running' as const,
          exitCode: null,
          startedAtMs: 1,
          error: null,
        })),
      ),
    )
    const observed = [
      { node: 'a', reachable: true as const, containers, readAtMs: 1 },
      { node: 'b', reachable: true as const, containers: [], readAtMs: 1 },
    ]
    const plan = planOf([wide, four], [blocker, pair], observed)
    const [leader, follower] = plan.deployments[1]?.replicas[0]?.ranks ?? []
    expect(lines(leader?.command ?? [])).toContain('--port 8108')
    expect(lines(leader?.command ?? [])).toContain('--dist-init-addr 10.0.0.1:29580')
    expect(lines(follower?.command ?? [])).toContain('--port 8100')
    expect(plan.deployments[1]?.replicas[0]?.endpoint).toBe('http://10.0.0.1:8108')
  })
})

describe('the engine gets the pool that the plan shows', () => {
  it.each([
    ['QwQ', QWQ_SGLANG],
    ['R1', R1],
    ['QwQ at 0.8', { ...QWQ_SGLANG, memoryFraction: 0.8, context: 32_768 }],
  ])('%s', (_, deployment) => {
    const fit = planOf(THREE, [deployment]).deployments[0]?.fit
    if (fit === undefined) throw new Error('planned')
    const { command } = rankOf(THREE, deployment)
    const fraction = Number(command[command.indexOf('--mem-fraction-static') + 1])
    // SGLang's own formula, on what is free once a context of 1 GiB is there.
    const free = H20.memoryBytes.value - GIB
    const pool = (free * fraction - fit.weightsBytesPerGpu) / fit.kvBytesPerTokenPerGpu
    expect(pool).toBeLessThanOrEqual(fit.kvPoolTokens)
    expect(pool).toBeGreaterThan(fit.kvPoolTokens * 0.99)
  })
})

describe('arguments that contradict', () => {
  const against = (...extraArguments: string[]) =>
    sglang.contradictions(deploymentOf('qwq', { engine: 'sglang', extraArguments }))

  it.each([
    ['--tp', '16'],
    ['--tp=16'],
    ['--tp-size', '16'],
    ['--tensor-parallel-size=16'],
    ['--pp-size', '2'],
    ['--dist-init-addr', '10.0.0.1:5000'],
    ['--nccl-init-addr', '10.0.0.1:5000'],
    ['--mem-fraction-static', '0.8'],
    ['--model', 'x'],
    ['--context-length=1'],
    ['--enable-dp-attention'],
    ['--api-key', 'x'],
    ['--enable-metrics'],
    ['--use-ray'],
    ['--port', '1'],
  ])('%s %s', (...given) => {
    expect(against(...given)).toHaveLength(1)
  })

  it.each([
    ['--chunked-prefill-size', '4096'],
    ['--enable-metrics-for-all-schedulers'],
    ['--speculative-algorithm', 'EAGLE'],
    ['--max-queued-requests', '100'],
    ['--model-impl', 'auto'],
    ['--dp-attention-local-control-broadcast'],
    ['--chat-template', 'x.jinja'],
  ])('not %s %s', (...given) => {
    expect(against(...given)).toEqual([])
  })
})

describe('the command lines pass the parser made from the source of SGLang', () => {
  const facts = {
    maxContext: 163_840,
    attentionHeads: 128,
    memoryBytes: H20.memoryBytes.value,
    localGpus: 8,
    environment: {},
  }
  it.each([
    ['QwQ', QWQ_SGLANG, 40, 0],
    ['R1 rank 0', R1, 128, 0],
    ['R1 rank 1', R1, 128, 1],
    ['R1 pipeline', { ...R1, parallel: { nodes: 2, tensor: 8, pipeline: 2 } }, 128, 0],
    ['fp8 KV', { ...R1, kvCache: 'fp8', maxRunning: 4 }, 128, 0],
  ] as const)('%s', (_, deployment, attentionHeads, rank) => {
    const spec = rankOf(THREE, deployment, rank)
    const command = readSglang(spec.command.slice(3), { ...facts, attentionHeads })
    if (!command.ok) throw new Error(command.message)
    expect(command.settings).toMatchObject({
      servedNames: [deployment.name],
      contextTokens: deployment.context,
      tensor: deployment.parallel.tensor,
      pipeline: deployment.parallel.pipeline,
      nodes: deployment.parallel.nodes,
      nodeRank: rank,
      kvType: deployment.kvCache,
      metrics: true,
      cachedTokensInUsage: true,
    })
  })
})

describe('start-up phases from log lines', () => {
  it.each([
    [
      "[2026-04-27 02:35:54] server_args=ServerArgs(model_path='Qwen/Qwen3-8B', ...)",
      { phase: 'start' },
    ],
    ['[2026-04-27 02:36:03 TP3] Init torch distributed begin.', { phase: 'rendezvous' }],
    [
      '[2026-04-27 02:36:03] Init torch distributed ends. elapsed=0.27 s, mem usage=0.09 GB',
      { phase: 'rendezvous' },
    ],
    ['[2026-04-27 02:36:04] Load weight begin. avail mem=177.57 GB', { phase: 'weights' }],
    [
      'Loading safetensors checkpoint shards:  42% Completed | 68/163 [00:13<00:11,  2.87s/it]',
      { phase: 'weights', ratio: 68 / 163 },
    ],
    [
      'Multi-thread loading shards: 100% Completed | 5/5 [00:01<00:00,  3.08it/s]',
      { phase: 'weights', ratio: 1 },
    ],
    [
      '[2026-04-27 02:36:06] Load weight end. elapsed=1.97 s, type=Qwen3ForCausalLM, avail mem=162.30 GB',
      { phase: 'profile' },
    ],
    [
      '[2026-02-26 05:35:08 TP7] KV Cache is allocated. #tokens: 3262823, KV size: 186.77 GB',
      { phase: 'profile' },
    ],
    ['[2026-04-27 02:36:06] Memory pool end. avail mem=2.43 GB', { phase: 'profile' }],
    [
      '[2025-08-08 03:34:38] Capture cuda graph begin. This can take up to several minutes. avail mem=1.80 GB',
      { phase: 'graphs' },
    ],
    [
      '[01:33:12] Capture target verify CUDA graph end. elapsed=0.78 s, mem usage=0.12 GB',
      { phase: 'graphs' },
    ],
    [
      'Capturing batches (bs=2 avail_mem=58.04 GB):  33%|███▎      | 1/3 [00:00<00:01,  1.00it/s]',
      { phase: 'graphs', ratio: 1 / 3 },
    ],
    [
      '[2025-08-08 03:34:57] max_total_num_tokens=104273, chunked_prefill_size=2048',
      { phase: 'profile' },
    ],
    ['[2026-04-27 02:36:20] The server is fired up and ready to roll!', { phase: 'ready' }],
    // Uvicorn is up, the warm-up request is not answered yet.
    ['[2025-08-08 03:34:58] INFO:     Application startup complete.', null],
    ['[2025-08-08 03:35:00] Decode batch. #running-req: 1, #token: 512', null],
  ])('%.70s', (line, expected) => {
    expect(sglang.phase(line)).toEqual(expected)
  })
})

it('asks /health, which may take 20 s to answer', () => {
  expect(sglang.ready).toEqual({ path: '/health', probeTimeoutMs: 25_000 })
})
