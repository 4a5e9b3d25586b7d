/** All cases, in the order of the page. */
import type { Case } from './cases.ts'
import { LIMITS } from './cases-limits.ts'
import { REFUSALS } from './cases-refusals.ts'
import { RESPONSES } from './cases-responses.ts'
import { RETRIES } from './cases-retries.ts'
import { STREAMS } from './cases-streams.ts'

export const CASES: readonly Case[] = [...REFUSALS, ...LIMITS, ...RETRIES, ...STREAMS, ...RESPONSES]
