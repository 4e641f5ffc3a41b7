// On a phone the side's links stand in one row: the present page's is brought into view.
const here = document.querySelector(".side [aria-current]");
const row = here?.closest(".side");
if (row && row.scrollWidth > row.clientWidth) {
  const link = here.getBoundingClientRect(), box = row.getBoundingClientRect();
  row.scrollLeft += link.left + link.width / 2 - (box.left + box.width / 2);
}
