/**
 * Plans as an operator sees them, from files to the page: test/golden/plan has inventory and
 * manifests (`<<<` takes a file of this repository as it is shipped), a line of dashes, and the
 * page. UPDATE_GOLDEN=1 writes what is said now; read the difference before committing it.
 */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { beforeAll, describe, expect, test } from 'vitest'
import { runtimes } from '../../runtimes/index.ts'
import { issueLine, parseFiles } from '../../src/control/load.ts'
import { loadProfiles } from '../../src/control/profiles.ts'
import type { InputFile, InputFiles } from '../../src/core/admin.ts'
import { rehearsed } from '../../src/core/inventory.ts'
import { planText } from '../../src/core/plan-text.ts'
import { plan } from '../../src/core/planner.ts'
import type { GpuProfiles } from '../../src/core/profile.ts'
import { observe } from '../support/plans.ts'

const DIRECTORY = path.join(import.meta.dirname, '../golden/plan')
const ROOT = path.join(import.meta.dirname, '../..')
const DASHES = '----------\n'

let profiles: GpuProfiles = new Map()

beforeAll(async () => {
  const answer = await loadProfiles(path.join(ROOT, 'gpu-profiles'))
  if (!answer.ok) throw new Error(answer.issues.map(issueLine).join('\n'))
  profiles = answer.profiles
})

const filesOf = (input: string): InputFiles => {
  const all = input.split(/^(?=>>> |<<< )/m).map((part): InputFile => {
    const end = part.indexOf('\n')
    const name = part.slice(4, end)
    const shipped = part.startsWith('<<<')
    return {
      path: name,
      text: shipped ? readFileSync(path.join(ROOT, name), 'utf8') : part.slice(end + 1),
    }
  })
  return {
    inventory: all.find((file) => file.path === 'inventory.yaml') ?? null,
    manifests: all.filter((file) => file.path !== 'inventory.yaml'),
  }
}

/** `rehearse` as the first line: what `make up` plans on a machine without GPUs. */
const said = (input: string): string => {
  const rehearse = input.startsWith('rehearse\n')
  const answer = parseFiles(filesOf(input.replace(/^rehearse\n/, '')), profiles)
  if (!answer.ok) throw new Error(answer.issues.map(issueLine).join('\n'))
  const { desired } = answer
  const inventory = rehearse ? rehearsed(desired.inventory) : desired.inventory
  const planned = plan({
    desired: { ...desired, inventory },
    observed: observe(inventory.nodes),
    runtimes,
    options: { rehearsalSpeed: 1 },
  })
  const processNodes = new Set(
    inventory.nodes.filter(({ driver }) => driver === 'process').map(({ name }) => name),
  )
  return planText(planned, { rehearsal: rehearse, color: false, processNodes })
}

const cases = readdirSync(DIRECTORY).filter((name) => name.endsWith('.txt'))

describe('plans', () => {
  test('there are some', () => expect(cases.length).toBeGreaterThanOrEqual(6))

  test.each(cases)('%s', (name) => {
    const file = path.join(DIRECTORY, name)
    const [input = '', expected = ''] = readFileSync(file, 'utf8').split(DASHES)
    const page = said(input)
    if (process.env.UPDATE_GOLDEN === '1') writeFileSync(file, `${input}${DASHES}${page}`)
    else expect(page).toBe(expected)
  })
})
