// Draws the figures of a notebook's page; their data stand beside them.
for (const place of document.querySelectorAll(".nb-plotly")) {
  const figure = JSON.parse(place.querySelector("script").textContent);
  Plotly.newPlot(place, figure.data, figure.layout, { responsive: true, displaylogo: false });
}
