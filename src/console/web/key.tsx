/** Asks for the admin key; it is kept for this tab alone (sessionStorage), never in a cookie. */
import { useState } from 'preact/hooks'

const STORED = 'penstock-admin-key'

export const storedKey = (): string | null => sessionStorage.getItem(STORED)
export const storeKey = (key: string): void => sessionStorage.setItem(STORED, key)
export const forgetKey = (): void => sessionStorage.removeItem(STORED)

type Props = { readonly refused: string | null; onKey(key: string): void }

export const KeyForm = ({ refused, onKey }: Props) => {
  const [key, setKey] = useState('')
  const submit = (event: Event): void => {
    event.preventDefault()
    if (key.trim() !== '') onKey(key.trim())
  }
  return (
    <main class="door">
      <form class="panel" onSubmit={submit}>
        <h1>Penstock</h1>
        <p>
          This console needs an admin key. <code>penstock up</code> prints the first one;{' '}
          <code>penstock keys create --help</code> says how to make more.
        </p>
        <label for="key">Admin key</label>
        <input
          id="key"
          type="password"
          autocomplete="off"
          spellcheck={false}
          placeholder="sk-ps-…"
          value={key}
          onInput={(event) => setKey(event.currentTarget.value)}
        />
        {refused !== null && (
          <p class="bad" role="alert">
            {refused}
          </p>
        )}
        <button type="submit" class="primary">
          Open the console
        </button>
        <p class="dim">The key stays in this tab and is gone when the tab is closed.</p>
      </form>
    </main>
  )
}
