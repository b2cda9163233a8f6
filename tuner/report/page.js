// Draws the figures one after the other, so that the page can be read while they come, and fits them to paper.
(() => {
  const places = [...document.querySelectorAll("figure.plot")];
  const looks = { displaylogo: false, responsive: true, displayModeBar: false };
  const fit = (width) => places.forEach((place) => {
    const room = width && (place.closest(".small, .pairs") ? width / 2 - 12 : width);
    const letters = { "xaxis.tickfont.size": place.closest(".wide") ? (room ? 7 : 10) : 12 };
    Plotly.relayout(place, { ...letters, ...(room ? { width: room, autosize: false } : { width: null, autosize: true }) });
  });
  const draw = (index) => {
    document.documentElement.dataset.drawn = `${index}/${places.length}`;
    if (index === places.length) return;
    const spec = JSON.parse(places[index].querySelector("script").textContent);
    Plotly.newPlot(places[index], spec.data, spec.layout, looks).then(() => setTimeout(draw, 0, index + 1));
  };
  addEventListener("beforeprint", () => fit(670));
  addEventListener("afterprint", () => fit(null));
  draw(0);
})();
