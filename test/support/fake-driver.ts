/** A node in memory that keeps its containers when Penstock dies; faults are settings. */
import type { Container } from '../../src/core/observed.ts'
import type { RankSpec } from '../../src/core/runtime.ts'
import type { Driver } from '../../src/drivers/driver.ts'
import { PenstockError } from '../../src/errors.ts'

export type FakeNode = {
  readonly name: string
  readonly containers: Map<string, Container>
  readonly log: string[]
  away: boolean
  /** The next starts on this node fail with this message. */
  refuse: string | null
  kill(name: string, exitCode: number): void
  driver(): Driver
}

export const fakeNode = (name: string, turn: () => Promise<void>): FakeNode => {
  const node: FakeNode = {
    name,
    containers: new Map(),
    log: [],
    away: false,
    refuse: null,
    kill: (container, exitCode) => {
      const found = node.containers.get(container)
      if (found === undefined) return
      node.containers.set(container, { ...found, state: 'exited', exitCode })
    },
    driver: () => fakeDriver(node, turn),
  }
  return node
}

const fakeDriver = (node: FakeNode, turn: () => Promise<void>): Driver => {
  const reach = async (): Promise<void> => {
    await turn()
    if (node.away) throw new PenstockError('node_unreachable', 'fake: away', { node: node.name })
  }
  const start = async (spec: RankSpec): Promise<void> => {
    await reach()
    if (node.refuse !== null) {
      const place = { node: node.name, rank: spec.labels.rank }
      throw new PenstockError('container_refused', node.refuse, place)
    }
    const running = [...node.containers.values()].filter(({ state }) => state === 'running')
    const clash = running.find(
      (other) =>
        other.name !== spec.name && other.labels.gpus.some((gpu) => spec.gpus.includes(gpu)),
    )
    if (clash !== undefined) throw new Error(`GPU of ${clash.name} given to ${spec.name} as well`)
    node.log.push(`start ${spec.name}`)
    const { name, labels } = spec
    const state = 'running'
    node.containers.set(name, { name, labels, state, exitCode: null, startedAtMs: 1, error: null })
  }
  return {
    name: 'fake',
    node: node.name,
    visibleGpus: 'rank',
    facts: async () => {
      await reach()
      return { engine: 'fake', hostname: node.name, cpus: 1, memoryBytes: 1 }
    },
    list: async () => {
      await reach()
      return [...node.containers.values()]
    },
    hasImage: async () => true,
    start,
    stop: async (name) => {
      await reach()
      if (node.containers.delete(name)) node.log.push(`stop ${name}`)
    },
    logs: async () => 'last words\n',
    follow: async function* () {
      yield 'last words'
    },
    exec: async function* () {
      yield ''
    },
    close: async () => undefined,
  }
}
