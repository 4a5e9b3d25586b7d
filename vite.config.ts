import { defineConfig } from 'vite'

/** The console's page. `npm run build:web` writes dist/console, which src/console/open.ts serves. */
export default defineConfig({
  root: 'src/console/web',
  // Nothing inline: the console's content security policy allows files from itself alone.
  build: {
    outDir: '../../../dist/console',
    emptyOutDir: true,
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    target: 'es2023',
  },
  oxc: { jsx: { runtime: 'automatic', importSource: 'preact' } },
})
