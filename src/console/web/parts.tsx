/** Small pieces that several sections share. */
import { type ComponentChildren, createContext } from 'preact'
import { useContext, useState } from 'preact/hooks'
import { OLD_MS, span, UNKNOWN } from './format.ts'

/** Milliseconds since the last picture came: added to every age in it. */
export const Lag = createContext(0)

type Tone = 'ok' | 'warn' | 'bad' | 'busy' | 'idle'

/** A state in words with a coloured dot: never by colour alone. */
export const State = ({ tone, children }: { tone: Tone; children: ComponentChildren }) => (
  <span class={`state ${tone}`}>{children}</span>
)

export const Age = ({ ms }: { ms: number }) => {
  const age = ms + useContext(Lag)
  return <span class={age > OLD_MS ? 'age old' : 'age'}>{span(age)}</span>
}

type BarProps = {
  readonly ratio: number | null | undefined
  /** At and above: amber, red. Left out: a load, which is not bad by being high. */
  readonly limits?: readonly [number, number]
}

/** The number stands beside it in text; the bar is for the eye. Unknown draws an empty hatch. */
export const Bar = ({ ratio, limits }: BarProps) => {
  if (ratio === null || ratio === undefined) return <span class="bar unknown" aria-hidden="true" />
  const [amber, red] = limits ?? [2, 2]
  const tone = ratio >= red ? 'bad' : ratio >= amber ? 'warn' : 'ok'
  const width = `${Math.min(100, Math.max(0, ratio * 100))}%`
  return (
    <span class={`bar ${tone}`} aria-hidden="true">
      <span class="full" style={{ width }} />
    </span>
  )
}

/** A value, or an en dash that says why there is none. */
export const Value = ({ text, why }: { text: string; why: string }) =>
  text === UNKNOWN ? (
    <span class="dim" title={why}>
      {UNKNOWN}
      <span class="hidden"> unknown: {why}</span>
    </span>
  ) : (
    <span>{text}</span>
  )

export const Rehearsal = () => (
  <span class="rehearsal" title="Numbers here come from the flight simulator, not from a GPU">
    Rehearsal
  </span>
)

export const Empty = ({ children }: { children: ComponentChildren }) => (
  <div class="empty">{children}</div>
)

export const Copy = ({ text, what }: { text: string; what: string }) => {
  const [said, say] = useState('')
  const copy = async (): Promise<void> => {
    say((await copied(text)) ? 'Copied' : 'Select and copy')
    setTimeout(() => say(''), 2000)
  }
  return (
    <button type="button" class="copy" onClick={copy} aria-label={`Copy ${what}`}>
      <span aria-live="polite">{said === '' ? 'Copy' : said}</span>
    </button>
  )
}

/** The clipboard exists on https and localhost only; elsewhere the operator selects by hand. */
const copied = async (text: string): Promise<boolean> => {
  if (navigator.clipboard === undefined) return false
  return navigator.clipboard.writeText(text).then(
    () => true,
    () => false,
  )
}
