// Shows what a cell displays as VS Code's notebooks do: by the library with which their Jupyter extension shows widgets.
// test_browser.py bundles this file, serves it beside a Jupyter server, and calls `run`.
import { KernelManager, ServerConnection } from '@jupyterlab/services'
import { activate } from '@vscode/jupyter-ipywidgets8/dist/ipywidgets.js'

const WIDGET = 'application/vnd.jupyter.widget-view+json'
activate()
window.vscIPyWidgets8.load()
window.require.config({ paths: { anywidget: '/static/anywidget' } })

const token = new URLSearchParams(location.search).get('token')
const baseUrl = `${location.origin}/`
const serverSettings = ServerConnection.makeSettings({ baseUrl, wsUrl: baseUrl.replace('http', 'ws'), token })
const kernel = await new KernelManager({ serverSettings }).startNew({ name: 'python3' })
const scripts = {
  widgetsRegisteredInRequireJs: new Set(),
  loadWidgetScript: async () => {}, // require.js finds it
  successHandler: () => {},
  errorHandler: (...what) => console.error(...what),
}
const manager = new window.vscIPyWidgets.WidgetManager(kernel, document.body, scripts, () => {})

async function show({ header, content }) {
  if (header.msg_type === 'error') console.error(content.traceback.join('\n'))
  if (!content.data) return
  const node = document.body.appendChild(document.createElement('div'))
  if (!content.data[WIDGET]) return void (node.innerHTML = content.data['text/html'] ?? content.data['text/plain'])
  const view = await manager.create_view(await manager.get_model(content.data[WIDGET].model_id))
  await manager.display_view(undefined, view, { node })
}

window.run = async code => {
  const future = kernel.requestExecute({ code })
  future.onIOPub = show
  return (await future.done).content.status
}
