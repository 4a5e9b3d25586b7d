import { describe, expect, it } from 'vitest'
import { dockerCommand, isSecret, processCommand, quoted } from '../../src/core/command-line.ts'
import { planText } from '../../src/core/plan-text.ts'
import { shownPlan } from '../../src/core/shown-plan.ts'
import { rankOf } from '../support/launches.ts'
import { applied, deploymentOf, nodeOf, observe, planOf, QWQ, R1, THREE } from '../support/plans.ts'

const PLAIN = { rehearsal: false, color: false }
const HF_TOKEN = 'hf_abcdefghijklmnop'
const SECRETIVE = deploymentOf('qwq', {
  environment: { HF_TOKEN, NCCL_DEBUG: 'WARN now' },
})

describe('a command to paste', () => {
  it('docker run, with everything that the driver sets', () => {
    const spec = rankOf(THREE, R1, 1)
    expect(dockerCommand(spec)).toBe(`docker run --detach \\
  --name penstock-deepseek-r1-0-1 \\
  --network host \\
  --init \\
  --restart no \\
  --no-healthcheck \\
  --gpus '"device=0,1,2,3,4,5,6,7"' \\
  --ipc host \\
  --ulimit memlock=-1 \\
  --ulimit stack=67108864 \\
  --ulimit nofile=65536 \\
  --cap-add IPC_LOCK \\
  --device /dev/infiniband \\
  --volume /data/models:/weights \\
  --env SGLANG_HOST_IP=10.0.0.22 \\
  --env SGLANG_TIMEOUT_KEEP_ALIVE=120 \\
  --env SGLANG_CACHE_DIR=/weights/.cache/sglang \\
  --env SGLANG_DG_CACHE_DIR=/weights/.cache/deep_gemm \\
  --env HF_HOME=/weights/huggingface \\
  --env NCCL_SOCKET_IFNAME=bond0 \\
  --env GLOO_SOCKET_IFNAME=bond0 \\
  --env NCCL_IB_HCA=mlx5_0,mlx5_1 \\
  --env NCCL_IB_GID_INDEX=3 \\
  --label dev.penstock.managed=true \\
  --label dev.penstock.deployment=deepseek-r1 \\
  --label dev.penstock.replica=0 \\
  --label dev.penstock.rank=1 \\
  --label dev.penstock.size=2 \\
  --label dev.penstock.spec-hash=${spec.labels.specHash} \\
  --label dev.penstock.engine=sglang \\
  --label dev.penstock.node=h20-8b \\
  --label dev.penstock.gpus=0,1,2,3,4,5,6,7 \\
  --label dev.penstock.port=8100 \\
  --label dev.penstock.rehearsal=false \\
  --stop-timeout 45 \\
  --entrypoint python3 \\
  lmsysorg/sglang:v0.5.20 \\
  -m sglang.launch_server \\
  --model-path deepseek-ai/DeepSeek-R1 \\
  --served-model-name deepseek-r1 \\
  --revision main \\
  --host 10.0.0.22 \\
  --port 8100 \\
  --tp-size 16 \\
  --pp-size 1 \\
  --nnodes 2 \\
  --node-rank 1 \\
  --dist-init-addr 10.0.0.21:29500 \\
  --dist-timeout 3600 \\
  --context-length 65536 \\
  --mem-fraction-static 0.867 \\
  --kv-cache-dtype auto \\
  --trust-remote-code \\
  --reasoning-parser deepseek-r1 \\
  --enable-metrics \\
  --enable-cache-report \\
  --watchdog-timeout 1800`)
  })

  it('takes secrets from the shell, and quotes what a shell would split', () => {
    const command = dockerCommand(rankOf(THREE, SECRETIVE))
    expect(command).not.toContain('hf_')
    expect(command).toContain('\n  --env HF_TOKEN \\\n')
    expect(command).toContain("\n  --env 'NCCL_DEBUG=WARN now' \\\n")
  })

  it('a private /dev/shm has its size', () => {
    const container = { ipc: 'private', shm: '512MiB', memlock: 'default' }
    const command = dockerCommand(rankOf([nodeOf('a', { container })], QWQ))
    expect(command).toContain('--ipc private \\\n  --shm-size 512m \\\n')
    expect(command).not.toContain('ulimit')
  })

  it('a process: variables, no container, no secret', () => {
    const command = processCommand(rankOf([nodeOf('a', { driver: 'process' })], SECRETIVE))
    expect(command).toMatch(
      /^env \\\n {2}CUDA_VISIBLE_DEVICES=0 \\\n {2}VLLM_HOST_IP=10\.0\.0\.11 \\\n/,
    )
    expect(command).toContain('\n  vllm \\\n  serve \\\n  Qwen/QwQ-32B \\\n')
    expect(command).not.toContain('HF_TOKEN')
  })

  it.each([
    ['plain', 'plain'],
    ['two words', "'two words'"],
    ["it's", "'it'\\''s'"],
    ['$HOME', "'$HOME'"],
    ['', "''"],
    ['{"a": 1}', `'{"a": 1}'`],
  ])('quotes %s', (word, expected) => {
    expect(quoted(word)).toBe(expected)
  })

  it.each([
    ['HF_TOKEN', true],
    ['AWS_SECRET_ACCESS_KEY', true],
    ['OPENAI_API_KEY', true],
    ['REDIS_PASSWORD', true],
    ['HF_HOME', false],
    ['TOKENIZERS_PARALLELISM', false],
    ['HF_TOKEN_PATH', true],
    ['VLLM_HTTP_TIMEOUT_KEEP_ALIVE', false],
  ])('%s is a secret: %s', (name, secret) => {
    expect(isSecret(name)).toBe(secret)
  })
})

describe('the page', () => {
  it('shows the sum of the fit with aligned columns', () => {
    const text = planText(planOf(THREE, [QWQ]), PLAIN)
    expect(text).toContain(`qwq-32b: vllm, tensor 1, pipeline 1, 1 node, context 65,536
  fit: yes, per GPU of profile h20-96g
      VRAM                                  95.58 GiB   102,625,181,696 B
      share that the engine may use, 0.92   87.93 GiB    94,415,167,160 B
    - weights                               61.03 GiB    65,527,752,704 B
    - CUDA context, graphs, workspaces       1.50 GiB     1,610,612,736 B
    - activations of 8192 tokens             1.41 GiB     1,509,949,440 B
    = KV cache                              24.00 GiB    25,766,852,280 B
    at 262,144 B (256.0 KiB) a token: KV pool of 98,292 tokens
    = 1.49 requests of full context (65,536 tokens)
`)
  })

  it('what starts, is replaced, stops and stays', () => {
    const before = planOf(THREE, [QWQ, R1])
    const changed = { ...QWQ, context: 32_768 }
    const node = nodeOf('h20-8c', { address: '10.0.0.23' })
    const old = planOf([node], [deploymentOf('old')])
    const more = deploymentOf('more')
    const nodes = [...THREE, node]
    const running = [...applied(before), ...applied(old)]
    const text = planText(planOf(nodes, [changed, R1, more], observe(nodes, running)), PLAIN)
    const changes = text.slice(text.indexOf('Changes'))
    expect(changes.replaceAll(/[0-9a-f]{8} -> [0-9a-f]{8}/g, 'X -> Y')).toBe(`Changes
  - stop old/0: no longer in the manifests
  ~ replace qwq-32b/0: spec changed (hash X -> Y)
  + start more/0: not running
  = deepseek-r1/0
1 to start, 1 to replace, 1 to stop, 1 unchanged
`)
    expect(text).toContain('\n  = deepseek-r1/0: unchanged\n      place: runs here\n')
    expect(text).toContain('\n  ~ qwq-32b/0: replace, spec changed')
    expect(text).toContain('\n      # rank 0, on h20-1\n      docker run --detach \\\n')
    expect(text).toContain('    not h20-8a: 0 of 8 free, 1 needed: GPU 0-7 held by deepseek-r1/0')
  })

  it('nothing to do', () => {
    const plan = planOf(THREE, [QWQ])
    const text = planText(planOf(THREE, [QWQ], observe(THREE, applied(plan))), PLAIN)
    expect(text).toContain('Nothing to do\n  = qwq-32b/0\n0 to start')
  })

  it('refusals with the way out, and replicas without a place', () => {
    const single = { ...R1, parallel: { nodes: 1, tensor: 8, pipeline: 1 } }
    const many = deploymentOf('many', { replicas: 2, nodes: ['h20-1'] })
    const text = planText(planOf(THREE, [single, many]), PLAIN)
    expect(text).toContain('fit: no, per GPU of profile h20-96g')
    expect(text).toContain('refused: the KV pool holds 53,015 tokens')
    expect(text).toContain('\n    would fit with memoryFraction: 0.93')
    expect(text).toContain('1 deployment refused, 1 replica without a place')
    expect(text).toContain(`  many/1: no place
      h20-1: 0 of 1 free, 1 needed: GPU 0 held by many/0
      h20-8a: not in \`nodes\` of the manifest`)
  })

  it('as JSON, too, names secrets and hides them; what is no secret stays', () => {
    const plan = planOf(THREE, [SECRETIVE])
    expect(JSON.stringify(plan)).toContain(HF_TOKEN)
    const shown = shownPlan(plan)
    expect(JSON.stringify(shown)).not.toContain(HF_TOKEN)
    const [rank] = shown.deployments[0]?.replicas[0]?.ranks ?? []
    expect(rank?.environment).toMatchObject({ HF_TOKEN: '***', NCCL_DEBUG: 'WARN now' })
    expect(shownPlan(planOf(THREE, [QWQ]))).toEqual(planOf(THREE, [QWQ]))
  })

  it('says rehearsal where it is one, and never shows a secret', () => {
    const nodes = THREE.map((node) => ({ ...node, rehearse: true }))
    const text = planText(planOf(nodes, [SECRETIVE]), { ...PLAIN, rehearsal: true })
    expect(text.split('\n')[0]).toContain('rehearsal')
    expect(text).not.toContain(HF_TOKEN)
    expect(planText(planOf(THREE, [QWQ]), PLAIN)).not.toContain('rehearsal:')
  })

  it('prints processes for nodes that run processes', () => {
    const text = planText(planOf([nodeOf('a', { driver: 'process' })], [QWQ]), {
      ...PLAIN,
      processNodes: new Set(['a']),
    })
    expect(text).toContain('      env \\\n        CUDA_VISIBLE_DEVICES=0 ')
    expect(text).not.toContain('docker run')
  })

  it('color adds escapes and nothing else', () => {
    const plan = planOf(THREE, [QWQ, R1])
    const colored = planText(plan, { rehearsal: true, color: true })
    expect(colored).toContain('\u001b[')
    const [first, ...rest] = colored.split('\u001b')
    const stripped = [first, ...rest.map((part) => part.replace(/^\[\d+m/, ''))].join('')
    expect(stripped).toBe(planText(plan, { rehearsal: true, color: false }))
  })
})
