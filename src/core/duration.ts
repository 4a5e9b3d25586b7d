/** Spans of time as manifests write them. */
import { z } from 'zod'

/** `30s`, `10m`, `1h`, `250ms`: milliseconds once parsed. */
export const Duration = z
  .string()
  .regex(/^\d{1,7}(ms|s|m|h)$/, 'expected a duration such as 100ms, 30s or 1h')
  .transform((text) => {
    const unit = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 }
    const [, digits = '0', name = 's'] = /^(\d+)(\w+)$/.exec(text) ?? []
    return Number(digits) * (name === 'ms' || name === 'm' || name === 'h' ? unit[name] : unit.s)
  })
