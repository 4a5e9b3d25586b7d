/**
 * How much one simulator process carries: open streams, tokens a second delivered,
 * the CPU share and the memory of its process. The load comes from a process of its own over plain
 * sockets; every hundredth stream asks for `continuous_usage_stats`, which tells how many tokens
 * have really arrived. The GPU's figures are solved so that one step with all streams takes as
 * long as the rate asks for. Needs twice as many descriptors as streams: `ulimit -n 20000`.
 *
 *   node test/bench/simulator.ts [streams] [tokens per second and stream] [seconds]
 */
import { type ChildProcess, fork, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join, resolve } from 'node:path'
import { costOf } from '../../runtimes/simulator/service.ts'
import type { Architecture } from '../../src/core/manifest.ts'
import type { Rehearsal } from '../../src/core/runtime.ts'
import { holdStreams, type Seen } from './simulator-load.ts'

/** Issue 3, point 9. */
const GOAL = { streams: 10_000, tokensPerSecond: 50_000, cores: 1 }

/** Qwen2.5-0.5B's config.json: 12 KiB of KV a token, so that 10,000 answers fit one GPU. */
const SMALL: Architecture = {
  weightBytes: 988_097_824,
  parameters: 494_032_768,
  hiddenSize: 896,
  layers: 24,
  attentionHeads: 14,
  kvHeads: 2,
  headDimension: 64,
  vocabulary: 151_936,
  maxContext: 32_768,
  weightsType: 'bf16',
}
const KV_BYTES_PER_TOKEN = 2 * 2 * 64 * 24 * 2
/** Prompt and half an answer: what a stream reads of the cache in a step, about. */
const CONTEXT = 100
/** Kernel clock ticks a second, as /proc counts: fixed to 100 in the Linux interface. */
const TICKS = 100

const gpu = (bf16Flops: number): Rehearsal => ({
  node: 'bench',
  gpus: [0],
  gpuName: 'Benchmark GPU',
  memoryBytes: 141 * 2 ** 30,
  bandwidthBytesPerSecond: 4.8e12,
  bf16Flops,
  fp8Flops: bf16Flops,
  interconnectBytesPerSecond: 900e9,
  powerLimitWatts: 700,
  architecture: SMALL,
  speed: 1,
})

/**
 * The FLOPs, and where these do not suffice the speed, at which a step with all streams takes this
 * long in real time: by the calibrated cost of a sequence on the host no engine of today computes
 * 10,000 at once in 200 ms, so the simulator is driven faster. Its work a second is the same.
 */
const rehearsalFor = (streams: number, stepMs: number): Rehearsal => {
  const load = {
    decodeTokens: streams,
    decodeContext: streams * CONTEXT,
    prefillTokens: 0,
    prefillContext: 0,
  }
  const stepAt = (flops: number): number =>
    costOf({ tensor: 1, pipeline: 1 }, gpu(flops), KV_BYTES_PER_TOKEN).stepMs(load)
  // Bisection; a step only gets shorter with more FLOPs.
  let [low, high] = [1e9, 1e18]
  for (let round = 0; round < 100; round += 1) {
    const middle = Math.sqrt(low * high)
    if (stepAt(middle) > stepMs) low = middle
    else high = middle
  }
  return { ...gpu(high), speed: Math.max(1, stepAt(high) / stepMs) }
}

const freePort = async (): Promise<number> => {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  server.close()
  await once(server, 'close')
  if (address === null || typeof address === 'string') throw new Error('no port')
  return address.port
}

const startSimulator = async (port: number, streams: number, rehearsal: Rehearsal) => {
  const bin = resolve(import.meta.dirname, '../../runtimes/simulator/bin')
  // Eager: a start without compilation and graphs takes 12 s in place of a minute.
  const argv = ['serve', 'bench', '--host', '127.0.0.1', '--port', String(port), '--enforce-eager']
  const sizes = ['--max-num-seqs', String(streams), '--max-num-batched-tokens']
  const child = spawn(join(bin, 'vllm'), [...argv, ...sizes, String(streams + 8192)], {
    env: {
      ...process.env,
      PENSTOCK_NODE: process.execPath,
      PENSTOCK_REHEARSAL: JSON.stringify(rehearsal),
    },
    stdio: ['ignore', 'ignore', 'inherit'],
  })
  child.once('exit', (code) => {
    if (code !== null && code !== 0) console.error(`the simulator ended with status ${code}`)
  })
  for (;;) {
    if (child.exitCode !== null) throw new Error('the simulator did not start')
    const up = await fetch(`http://127.0.0.1:${port}/health`).catch(() => null)
    if (up?.status === 200) return child
    await new Promise((next) => setTimeout(next, 200))
  }
}

/** CPU seconds of all threads, user and system, and resident bytes now and at most. */
const usageOf = (pid: number) => {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  const status = readFileSync(`/proc/${pid}/status`, 'utf8')
  const kib = (key: string) => Number(new RegExp(`^${key}:\\s+(\\d+)`, 'm').exec(status)?.[1])
  return {
    user: Number(fields[11]) / TICKS,
    system: Number(fields[12]) / TICKS,
    rssMiB: kib('VmRSS') / 1024,
    peakMiB: kib('VmHWM') / 1024,
  }
}

const metric = async (port: number, name: string): Promise<number> => {
  const text = await (await fetch(`http://127.0.0.1:${port}/metrics`)).text()
  return Number(new RegExp(`^vllm:${name}\\{.*\\} (\\S+)$`, 'm').exec(text)?.[1])
}

const generated = (port: number): Promise<number> => metric(port, 'generation_tokens_total')

const metricIs = async (port: number, name: string, value: number): Promise<boolean> => {
  const untilMs = performance.now() + 60_000
  while (performance.now() < untilMs) {
    if ((await metric(port, name)) === value) return true
    await new Promise((next) => setTimeout(next, 200))
  }
  return false
}

type Client = { readonly child: ChildProcess; look(): Promise<Seen> }

const startClient = async (port: number, streams: number): Promise<Client> => {
  const child = fork(new URL(import.meta.url), ['client', String(port), String(streams)])
  const look = async (): Promise<Seen> => {
    const answer = once(child, 'message')
    child.send('look')
    const [seen]: Seen[] = await answer
    if (seen === undefined) throw new Error('the client said nothing')
    return seen
  }
  await once(child, 'message')
  return { child, look }
}

const moment = async (pid: number, port: number, client: Client) => {
  const [seen, tokens] = [await client.look(), await generated(port)]
  return { atMs: performance.now(), seen, tokens, usage: usageOf(pid) }
}

type Moment = Awaited<ReturnType<typeof moment>>

const report = (before: Moment, after: Moment): boolean => {
  const seconds = (after.atMs - before.atMs) / 1000
  const rate = (from: number, to: number) => (to - from) / seconds
  const sampled = after.seen.sampledTokens - before.seen.sampledTokens
  const share = after.seen.open / Math.max(1, after.seen.sampled)
  const delivered = (sampled * share) / seconds
  const chunks = rate(before.seen.chunks, after.seen.chunks)
  const user = rate(before.usage.user, after.usage.user)
  const system = rate(before.usage.system, after.usage.system)
  const cores = user + system
  const client = rate(before.seen.cpuSeconds, after.seen.cpuSeconds)
  const show = (what: string, value: string, ratio = '') =>
    console.log(`${what.padEnd(34)}${value.padStart(14)}  ${ratio}`)
  const against = (value: number, goal: number) => `${(value / goal).toFixed(2)} x goal`
  show('open streams', String(after.seen.open), against(after.seen.open, GOAL.streams))
  show('tokens/s generated', rate(before.tokens, after.tokens).toFixed(0))
  show(
    'tokens/s delivered (sampled)',
    delivered.toFixed(0),
    against(delivered, GOAL.tokensPerSecond),
  )
  show('chunks/s delivered', chunks.toFixed(0), `${(delivered / chunks).toFixed(2)} tokens each`)
  show('CPU of the simulator, cores', cores.toFixed(2), against(cores, GOAL.cores))
  show('  user, system', `${user.toFixed(2)}, ${system.toFixed(2)}`)
  // Holds also where others take most of the machine.
  const perCore = delivered / cores
  show('tokens/s per core', perCore.toFixed(0), against(perCore, GOAL.tokensPerSecond))
  show(
    'resident MiB, peak MiB',
    `${after.usage.rssMiB.toFixed(0)}, ${after.usage.peakMiB.toFixed(0)}`,
  )
  show('KiB per stream', ((after.usage.rssMiB * 1024) / after.seen.open).toFixed(1))
  show('CPU of the client, cores', client.toFixed(2))
  show('streams that broke', String(after.seen.broken))
  return after.seen.broken === 0 && perCore >= GOAL.tokensPerSecond / GOAL.cores
}

const bench = async (streams: number, each: number, seconds: number): Promise<void> => {
  const port = await freePort()
  const rehearsal = rehearsalFor(streams, 1000 / each)
  const simulator = await startSimulator(port, streams, rehearsal)
  const pid = simulator.pid ?? 0
  try {
    const idle = usageOf(pid)
    console.log(`speed ${rehearsal.speed.toFixed(1)}`)
    console.log(`idle: ${idle.rssMiB.toFixed(0)} MiB; opening ${streams} streams …`)
    const beganMs = performance.now()
    const client = await startClient(port, streams)
    console.log(`all open after ${((performance.now() - beganMs) / 1000).toFixed(1)} s`)
    // The first steps still carry the wave of prompts.
    if (!(await metricIs(port, 'time_to_first_token_seconds_count', streams))) {
      throw new Error('not every stream has its first token after a minute')
    }
    await new Promise((next) => setTimeout(next, 1000))
    const before = await moment(pid, port, client)
    await new Promise((next) => setTimeout(next, seconds * 1000))
    const held = report(before, await moment(pid, port, client))
    client.child.kill()
    const idled = await metricIs(port, 'num_requests_running', 0)
    console.log(idled ? 'after all clients left: idle' : 'after all clients left: NOT idle')
    if (!held || !idled) process.exitCode = 1
  } finally {
    simulator.kill('SIGKILL')
  }
}

const [first = '', second = '', third = ''] = process.argv.slice(2)
if (first === 'client') await holdStreams(Number(second), Number(third))
else await bench(Number(first || 10_000), Number(second || 5), Number(third || 15))
