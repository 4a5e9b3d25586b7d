import { useState } from 'preact/hooks'
import type { FleetView } from '../../core/view.ts'
import { Copy, Empty } from './parts.tsx'
import { baseUrl, curlLines, pythonLines } from './snippets.ts'

export const CallIt = ({ fleet }: { fleet: FleetView }) => {
  const [chosen, choose] = useState('')
  const models = fleet.routes.map((route) => route.model)
  const model = models.includes(chosen) ? chosen : models[0]
  const base = baseUrl(fleet.gateway.url, location.hostname)
  return (
    <section aria-labelledby="call">
      <h2 id="call">Call it</h2>
      {model === undefined ? (
        <Empty>
          No route yet. Add one to <code>manifests/gateway.yaml</code>, then type{' '}
          <code>make deploy-models</code>.
        </Empty>
      ) : (
        <>
          <p class="pick">
            <label for="model">Model</label>
            <select
              id="model"
              value={model}
              onChange={(event) => choose(event.currentTarget.value)}
            >
              {models.map((name) => (
                <option key={name} value={name}>
                  {name}
                </option>
              ))}
            </select>
            <span class="dim">
              <code>export PENSTOCK_KEY=sk-ps-…</code> first; <code>penstock keys create</code>{' '}
              makes a key.
            </span>
          </p>
          <div class="cards">
            <Lines title="curl" text={curlLines(base, model)} />
            <Lines title="Python, official client" text={pythonLines(base, model)} />
          </div>
        </>
      )}
    </section>
  )
}

const Lines = ({ title, text }: { title: string; text: string }) => (
  <figure class="panel">
    <figcaption>
      {title}
      <span class="push" />
      <Copy text={text} what={`the ${title} lines`} />
    </figcaption>
    <pre>
      <code>{text}</code>
    </pre>
  </figure>
)
