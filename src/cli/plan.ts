/**
 * `penstock plan`: asks the running Penstock, which knows what runs; without one it plans for an
 * empty fleet and says so. Touches nothing either way.
 */
import { z } from 'zod'
import { runtimes } from '../../runtimes/index.ts'
import type { Settings } from '../config.ts'
import { emptyNodes } from '../control/wanted.ts'
import type { Desired } from '../core/desired.ts'
import { processNodes } from '../core/inventory.ts'
import { planText } from '../core/plan-text.ts'
import { plan as planFor } from '../core/planner.ts'
import { shownPlan } from '../core/shown-plan.ts'
import { adminClient } from './client.ts'
import { inputsOf, refuse } from './inputs.ts'
import { EXIT, type ExitCode, print, printJson, say } from './output.ts'
import type { Flags } from './program.ts'

const Answer = z.discriminatedUnion('ok', [
  z.object({
    ok: z.literal(true),
    text: z.string(),
    plan: z.looseObject({
      actions: z.array(z.unknown()),
      deployments: z.array(z.looseObject({ refusals: z.array(z.string()) })),
    }),
  }),
  z.object({
    ok: z.literal(false),
    issues: z.array(
      z.object({
        file: z.string(),
        line: z.number(),
        column: z.number(),
        path: z.string(),
        message: z.string(),
      }),
    ),
  }),
])
type Answer = z.output<typeof Answer>

export const plan = async (settings: Settings, { json }: Flags): Promise<ExitCode> => {
  const inputs = await inputsOf(settings)
  if (!inputs.ok) return refuse(inputs.issues)
  const client = adminClient(settings)
  const live = await client.running()
  const answer = live
    ? Answer.parse(await client.json('POST', '/admin/v1/plan', inputs.files))
    : offline(settings, inputs.desired)
  if (!answer.ok) return refuse(answer.issues)
  if (!live) say('No Penstock runs here: this is the plan for an empty fleet.\n')
  if (json) printJson(answer.plan)
  else print(answer.text)
  if (answer.plan.deployments.some(({ refusals }) => refusals.length > 0)) return EXIT.failed
  return answer.plan.actions.length > 0 ? EXIT.changesPending : EXIT.done
}

const offline = (settings: Settings, desired: Desired): Answer => {
  const made = planFor({
    desired,
    observed: emptyNodes(desired),
    runtimes,
    options: { rehearsalSpeed: settings.rehearsalSpeed },
  })
  const rehearsal = desired.inventory.nodes.some(({ rehearse }) => rehearse)
  return Answer.parse({
    ok: true,
    plan: shownPlan(made),
    text: planText(made, {
      rehearsal,
      color: false,
      processNodes: processNodes(desired.inventory),
    }),
  })
}
